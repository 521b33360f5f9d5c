"""Replicas behind nginx: ``python -m benchmarks.serving.replicas``.

First, three replicas of a small model answer sixteen clients while ``latest.json`` moves. No image
may fail, at most two versions may be served at once, and no replica may go back; how long a move
takes to reach all is measured. The exit status is 1 where one of these does not hold. Then one, two
and four processes that share the processors answer the same clients with ConvNeXt V2 Tiny.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import images
from benchmarks.measure import machine
from benchmarks.serving import load, models
from benchmarks.serving.nginx import nginx
from benchmarks.serving.server import OURS, Server, free_port, serve
from cxr_serving.model import processors, store

CLIENTS = 16
REPLICAS = 3
PROCESSES = (1, 2, 4)
_LIMIT_SECONDS = 120


@contextmanager
def behind_nginx(root: Path, number: int, **settings: str) -> Iterator[tuple[int, list[Server]]]:
    """The port of nginx, and the replicas of ``root / "data"`` behind it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=root)))
        servers = []
        for _ in range(number):
            port = free_port()
            environment = {"CXR_DATA_ROOT": str(root / "data"), "CXR_PORT": str(port), **settings}
            servers.append(stack.enter_context(serve(OURS, folder, port, environment)))
        yield stack.enter_context(nginx(folder, [server.port for server in servers])), servers


def serving(server: Server) -> str:
    """The version that a replica serves."""
    return str(server.client.get("/ready").json()["model"]["version"])


def move(servers: list[Server], directory: Path, seen: list[list[str]]) -> tuple[float, float]:
    """Point to a version; returns the seconds until the first and until the last replica serve it.

    Args:
        servers: the replicas.
        directory: of the version.
        seen: receives what each replica serves, again and again.
    """
    started = time.monotonic()
    store.write_pointer(directory.parent, directory.name)
    first = 0.0
    while True:
        seen.append([serving(server) for server in servers])
        after = time.monotonic() - started
        reached = seen[-1].count(directory.name)
        first = first or (after if reached else 0.0)
        if reached == len(servers):
            return first, after
        if after > _LIMIT_SECONDS:
            raise RuntimeError(f"{directory.name} is served by {reached} of {len(servers)}")
        time.sleep(0.02)


def swaps(root: Path, number: int) -> bool:
    """Print what was seen during the moves; returns whether all held."""
    directories = [models.publish(root / "data", models.SMALL, seed=0)]
    directories += [
        models.publish(root / "data", models.SMALL, seed, point=False)
        for seed in range(1, number + 1)
    ]
    order = [directory.name for directory in directories]
    seen: list[list[str]] = []
    with behind_nginx(root, REPLICAS, CXR_THREADS="1") as (port, servers):
        output = root / "load.json"
        seconds = 20 + 4.0 * number  # ended by a signal, it would write nothing
        loading = load.start(port, root / "images", output, CLIENTS, seconds)
        times = []
        for directory in directories[1:]:
            times.append(move(servers, directory, seen))
            time.sleep(1)
        outlasted = loading.poll() is None
        if loading.wait() != 0:
            raise RuntimeError("the load failed: see above")
    record = load.read(output)
    named = {a.json()["model"]["version"] for a in record.answers if a.status == 200}
    back = sum(
        order.index(before) > order.index(after)
        for replica in zip(*seen, strict=True)
        for before, after in itertools.pairwise(replica)
    )
    at_once = max(len(set(versions)) for versions in seen)
    last = [seconds for _, seconds in times]
    print(f"{len(record.answers)} images in {record.seconds:.0f} s, {number} moves\n")
    print(f"seconds to the first replica: median {median(first for first, _ in times):.2f}")
    print(f"seconds to the last replica: median {median(last):.2f}, at most {max(last):.2f}")
    held = True
    for claim, value, holds in (
        ("images that failed", len(record.failed), not record.failed),
        ("versions at once, at most", at_once, at_once <= 2),
        ("times that a replica went back", back, back == 0),
        (
            "versions that answered and were never published",
            len(named - {*order}),
            named <= {*order},
        ),
        ("the load outlasted the moves", outlasted, outlasted),
    ):
        print(f"{claim}: {value}{'' if holds else '  <- MUST NOT BE'}")
        held = held and holds
    return held


def scaling(root: Path, seconds: float) -> None:
    """Print how processes that share the processors answer ConvNeXt V2 Tiny."""
    models.publish(root / "data", models.TINY, seed=10_000)
    print("\n| processes | threads each | images/s | p50 ms | p99 ms | MiB |")
    print("|---:|---:|---:|---:|---:|---:|")
    for number in PROCESSES:
        threads = max(1, processors.count() // number)
        with behind_nginx(root, number, CXR_THREADS=str(threads)) as (port, servers):
            load.run(port, root / "images", CLIENTS, seconds=seconds / 4)
            record = load.run(port, root / "images", CLIENTS, seconds=seconds)
            resident = sum(server.resident for server in servers) / 2**20
        if record.failed:
            print(f"{len(record.failed)} images failed: {record.failed[0]}")
        p50, p99 = np.percentile([answer.seconds for answer in record.answers], [50, 99]) * 1000
        print(
            f"| {number} | {threads} | {record.throughput:.1f} | {p50:.0f} | {p99:.0f} "
            f"| {resident:.0f} |",
            flush=True,
        )


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=60, help="of each number of processes")
    arguments = parser.parse_args()
    print(f"{machine()}\n", flush=True)
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        images.make(root / "images", 16)
        held = swaps(root, arguments.moves)
        scaling(root, arguments.seconds)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
