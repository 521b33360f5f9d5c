"""Hostile and broken uploads: ``python -m benchmarks.serving.hostile``.

Sends 2,000 of them, eight at once, to a service of its own, then the few that are within all
limits and cost the most. No answer may be a 5xx, show a traceback or lack the service's form; no
file may stay behind; memory stays below a bound; and the service still classifies a good image as
it did before. The exit status is 1 where one of these does not hold.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.measure import machine
from benchmarks.serving import models
from benchmarks.serving.exchange import Answer, Upload, fault, send
from benchmarks.serving.forge import encode, image
from benchmarks.serving.server import OURS, Server, free_port, serve
from benchmarks.serving.uploads import heavy, uploads

AT_ONCE = 8
MAX_UPLOAD_BYTES = 16 * 2**20
# Above the level after warming up, and what the largest images accepted may take for a moment.
GROWTH, HEAVY_GROWTH = 300 * 2**20, 2**30


def attack(server: Server, sent: Sequence[Upload], bound: int) -> list[str]:
    """Send uploads, print what was answered and how long the slowest took.

    Args:
        server: that answers.
        sent: to it.
        bound: bytes that its memory may grow by.

    Returns:
        What was wrong, a line each.
    """
    before = server.resident
    server.forget_peak()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda upload: send(server.port, upload), sent))
    pairs: list[tuple[Upload, Answer]] = list(zip(sent, answers, strict=True))
    print(f"answers: {dict(sorted(Counter(answer.status for answer in answers).items()))}")
    pairs.sort(key=lambda pair: pair[1].seconds, reverse=True)
    for upload, answer in pairs[:5]:
        print(f"  {answer.seconds:.1f} s, {answer.status}: {upload.name}, {upload.path}")
    growth = server.peak - before
    print(f"memory: at most {growth / 2**20:.0f} MiB above {before / 2**20:.0f} MiB")
    faults = [
        f"{upload.name}, {upload.path}: {found}"
        for upload, answer in pairs
        if (found := fault(upload, answer)) is not None
    ]
    if growth > bound:
        faults.append(f"memory grew by {growth / 2**20:.0f} MiB")
    return faults


def classify(server: Server) -> list[float]:
    """The probabilities of a good image, which is explained, too: that loads what it takes."""
    files = {"file": ("image.jpeg", encode(image(1330, 970), "JPEG"))}
    server.client.post("/explain", files=files).raise_for_status()
    answer = server.client.post("/predict", files=files).raise_for_status()
    probs: list[float] = answer.json()["probs"]
    return probs


def main() -> None:
    """Print what was seen, and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sent = uploads(arguments.uploads, arguments.seed)
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        models.publish(root / "data", models.SMALL, seed=0)
        places = [root / name for name in ("tmp", "home", "cwd")]
        for place in places:
            place.mkdir()
        port = free_port()
        environment = {
            "CXR_DATA_ROOT": str(root / "data"),
            "CXR_PORT": str(port),
            "CXR_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
            "TMPDIR": str(places[0]),
            "HOME": str(places[1]),
        }
        data = _files(root / "data")
        print(machine(), flush=True)
        with serve(OURS, root, port, environment, directory=places[2]) as server:
            good = [classify(server) for _ in range(20)][-1]
            print(f"\n{len(sent)} uploads, {AT_ONCE} at once")
            faults = attack(server, sent, GROWTH)
            most = heavy()
            print(f"\n{len(most)} of the heaviest, {AT_ONCE} at once")
            faults += attack(server, most, HEAVY_GROWTH)
            if not np.allclose(good, classify(server), rtol=0, atol=1e-5):
                faults.append("a good image is answered otherwise than before")
        if left := (_files(root / "data") - data).union(*map(_files, places)):
            faults.append(f"files stayed behind: {sorted(map(str, left))[:10]}")
        if tracebacks := server.log.read_text().count("Traceback"):
            faults.append(f"{tracebacks} tracebacks in the service's log")
            print(server.log.read_text()[-5000:])
    print(f"\n{len(faults)} faults")
    for line in faults:
        print(f"- {line}")
    sys.exit(1 if faults else 0)


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main()
