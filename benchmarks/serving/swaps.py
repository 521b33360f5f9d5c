"""Hot swaps under load: ``python -m benchmarks.serving.swaps``.

Sixteen clients send images while ``latest.json`` moves 25 times, three times to a bundle that must
be rejected. No request may fail, every answer must hold the probabilities of the version that it
names, and memory must not grow. The exit status is 1 where one of these does not hold.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from benchmarks import images
from benchmarks.measure import machine
from benchmarks.serving import load, models
from benchmarks.serving.server import OURS, Server, free_port, serve
from cxr_serving.model import bundle, store
from cxr_serving.model.predictor import Predictor

IMAGES = 16
CLIENTS = 16
SWAPS = 25
TOLERANCE = 1e-5
GROWTH = 1.1

Expected = dict[str, dict[str, npt.NDArray[np.float32]]]


def _flip_a_byte(directory: Path) -> None:
    for name in (bundle.WEIGHTS_FILE, bundle.ONNX_FILE):
        contents = bytearray((directory / name).read_bytes())
        contents[len(contents) // 2] ^= 1
        (directory / name).write_bytes(contents)


def _truncate(directory: Path) -> None:
    for name in (bundle.WEIGHTS_FILE, bundle.ONNX_FILE):
        os.truncate(directory / name, (directory / name).stat().st_size // 2)


def _make_nan(directory: Path) -> None:
    path = directory / bundle.WEIGHTS_FILE
    weights = {name: np.full_like(values, np.nan) for name, values in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    graph = onnx.load(directory / bundle.ONNX_FILE)
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            spoilt = np.full_like(values, np.nan)
            tensor.CopyFrom(numpy_helper.from_array(spoilt, tensor.name))
    onnx.save(graph, directory / bundle.ONNX_FILE)


def publish(data_root: Path) -> tuple[list[Path], dict[str, str]]:
    """Publish every bundle that will be pointed to, the first one pointed to already.

    Returns:
        The directories in order, and for those that must be rejected what is wrong with them.
    """
    directories = [models.publish(data_root, models.SMALL, seed=0)]
    bad = {}
    for swap in range(1, SWAPS + 1):
        # Wrong before the hashes were taken, or damaged after.
        finish = {"finish": _make_nan} if swap == 20 else {}
        directory = models.publish(data_root, models.SMALL, swap, point=False, **finish)
        if swap == 20:
            bad[directory.name] = "weights that are NaN"
        elif swap == 6:
            _flip_a_byte(directory)
            bad[directory.name] = "a flipped bit"
        elif swap == 13:
            _truncate(directory)
            bad[directory.name] = "truncated weights"
        directories.append(directory)
    return directories, bad


def expect(directories: list[Path], folder: Path) -> Expected:
    """The probabilities of each image by each version."""
    paths = sorted(folder.rglob("*.jpeg"))
    expected = {}
    for directory in directories:
        predictor = Predictor(directory)
        pixels = np.stack([predictor.preprocessing.decode(path).pixels for path in paths])
        answers = predictor.predict(pixels)
        expected[directory.name] = {path.name: a for path, a in zip(paths, answers, strict=True)}
    return expected


def swap(server: Server, directory: Path, rejected: bool) -> None:
    """Point to a version, and return when it is served, or was rejected."""
    metric = f"cxr_model_{'rejections' if rejected else 'loads'}_total"
    before = server.total(metric)
    store.write_pointer(directory.parent, directory.name)
    server.wait(lambda: server.total(metric) > before)


def worst(record: load.Record, expected: Expected) -> float:
    """Largest difference of a probability from the one of the good version that is named."""
    return max(
        float(abs(expected[body["model"]["version"]][answer.image] - body["probs"]).max())
        for answer in record.answers
        if answer.status == 200
        for body in [answer.json()]
        if body["model"]["version"] in expected
    )


def main() -> None:
    """Print what was seen after each swap, and whether all held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        images.make(root / "images", IMAGES)
        directories, bad = publish(root / "data")
        good = [directory for directory in directories if directory.name not in bad]
        expected = expect(good, root / "images")
        port = free_port()
        environment = {
            "CXR_DATA_ROOT": str(root / "data"),
            "CXR_PORT": str(port),
            "CXR_POLL_SECONDS": "0.2",
        }
        print(f"{machine()}\n\n| swap | | answered | MiB |\n|---:|---|---:|---:|", flush=True)
        resident = []
        with serve(OURS, root, port, environment) as server:
            output = root / "load.json"
            loading = load.start(
                port, root / "images", output, CLIENTS, requests=arguments.requests
            )
            for number, directory in enumerate(directories):
                if number:
                    swap(server, directory, directory.name in bad)
                until = arguments.requests * (number + 1) // (SWAPS + 2)
                server.wait(lambda until=until: _answered(server) >= until, 3600)  # type: ignore[misc]
                under_load = loading.poll() is None
                resident.append(server.resident / 2**20)
                print(
                    f"| {number} | {bad.get(directory.name, '')} | {_answered(server):.0f} "
                    f"| {resident[-1]:.0f} |",
                    flush=True,
                )
            if loading.wait() != 0:
                raise RuntimeError("the load failed: see above")
            resident.append(server.resident / 2**20)
        record = load.read(output)
    named = Counter(a.json()["model"]["version"] for a in record.answers if a.status == 200)
    strangers = named.keys() - expected.keys()
    difference = worst(record, expected)
    growth = resident[-1] / resident[2]
    print(f"\n{len(record.answers)} images in {record.seconds:.0f} s\n")
    held = True
    for claim, value, holds in (
        ("requests that failed", str(len(record.failed)), not record.failed),
        ("largest difference of a probability", f"{difference:.1e}", difference <= TOLERANCE),
        ("bad versions that answered", str(len(strangers)), not strangers),
        (
            "good versions that answered",
            f"{len(named.keys() & expected.keys())} of {len(good)}",
            named.keys() >= expected.keys(),
        ),
        ("the load outlasted the swaps", str(under_load), under_load),
        (
            "memory at the end",
            f"{resident[-1]:.0f} MiB, {growth:.2f} of that after the second swap",
            growth <= GROWTH,
        ),
    ):
        print(f"{claim}: {value}{'' if holds else '  <- MUST NOT BE'}")
        held = held and holds
    for answer in record.failed[:5]:
        print(answer)
    sys.exit(0 if held else 1)


def _answered(server: Server) -> float:
    return server.total("cxr_requests_total", route="/predict")


if __name__ == "__main__":
    main()
