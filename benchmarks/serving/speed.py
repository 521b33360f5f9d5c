"""The service against a plain FastAPI baseline: ``python -m benchmarks.serving.speed``.

ConvNeXt V2 Tiny at 224 pixels with random weights, images of 1330 x 970 pixels. In each round the
services run in turn, each in a process of its own: one client first, then sixteen at once. The
figures are medians over the rounds. Bars hold on two cores without a GPU and on one (`--one-cpu`).
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from benchmarks import images
from benchmarks.measure import machine
from benchmarks.serving import load, models
from benchmarks.serving.server import OURS, Server, free_port, serve

IMAGES = 16
CLIENTS = 16
PLAIN, FP32, INT8 = "plain", "ours, fp32", "ours, int8"
RUNTIMES = {FP32: "onnx", INT8: "onnx-int8"}
# Weights with which the answers differ from image to image.
SEED = 2


@dataclass(frozen=True)
class Figures:
    """What one service did in one round.

    Attributes:
        start: seconds from the process's start to its first good answer to `/ready`.
        latency: median of one client alone, in milliseconds.
        throughput: images a second of all clients.
        p50, p99: of all clients at once, in milliseconds.
        health: 99th percentile of `/health` meanwhile, in milliseconds.
        resident: memory at the end, in MiB.
        load: share of one processor that the load took.
    """

    start: float
    latency: float
    throughput: float
    p50: float
    p99: float
    health: float
    resident: float
    load: float


Probabilities = dict[str, npt.NDArray[np.float64]]


def measure(mode: str, root: Path, bundle: Path, seconds: float) -> tuple[Figures, Probabilities]:
    """Run one service once.

    Args:
        mode: PLAIN, FP32 or INT8.
        root: holds ``images`` and ``data``, the data root.
        bundle: that is served.
        seconds: that all clients send for.

    Returns:
        The figures, and the probabilities of each image in class order.

    Raises:
        RuntimeError: an image was not classified, or by another runtime.
    """
    port = free_port()
    arguments: tuple[str, ...]
    if mode == PLAIN:
        arguments = ("-m", "benchmarks.serving.plain", str(port), str(bundle))
        environment, ready = {}, "/health"
    else:
        arguments, ready = OURS, "/ready"
        environment = {
            "CXR_DATA_ROOT": str(root / "data"),
            "CXR_PORT": str(port),
            "CXR_PRECISION": "int8" if mode == INT8 else "fp32",
        }
    with serve(arguments, root, port, environment, ready) as server:
        if mode != PLAIN:
            runtime = server.client.get("/model").raise_for_status().json()["runtime"]
            if runtime != RUNTIMES[mode]:
                raise RuntimeError(f"{mode} is computed by {runtime}: see {server.log}")
        return observe(mode, server, root / "images", seconds)


def observe(
    name: str, server: Server, images: Path, seconds: float
) -> tuple[Figures, Probabilities]:
    """Send images to a service that has just started: one client first, then many.

    Args:
        name: of the service, for messages.
        server: the service.
        images: folder of JPEGs.
        seconds: that all clients send for.

    Raises:
        RuntimeError: an image was not classified.
    """
    load.run(server.port, images, 1, requests=5)
    load.run(server.port, images, CLIENTS, requests=CLIENTS)
    alone = load.run(server.port, images, 1, requests=20)
    together = load.run(server.port, images, CLIENTS, seconds=seconds)
    resident = server.resident / 2**20
    if failed := [*alone.failed, *together.failed]:
        raise RuntimeError(f"{name} failed {len(failed)} images, the first with {failed[0]}")
    p50, p99 = _percentiles([answer.seconds for answer in together.answers], 50, 99)
    [health] = _percentiles(together.health, 99)
    figures = Figures(
        start=server.start_seconds,
        latency=_percentiles([answer.seconds for answer in alone.answers], 50)[0],
        throughput=together.throughput,
        p50=p50,
        p99=p99,
        health=health,
        resident=resident,
        load=together.cpu_seconds / together.seconds,
    )
    return figures, {a.image: np.array(a.json()["probs"]) for a in together.answers}


def medians(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure over the rounds."""
    return Figures(
        **{field.name: median(getattr(f, field.name) for f in rounds) for field in fields(Figures)}
    )


def _percentiles(seconds: list[float], *percents: float) -> list[float]:
    """In milliseconds."""
    return [1000 * float(value) for value in np.percentile(seconds, percents)]


def _show(figures: dict[str, Figures]) -> None:
    print("| | start s | 1 client ms | images/s | p50 ms | p99 ms | /health p99 ms | MiB | load |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for mode, row in figures.items():
        print(
            f"| {mode} | {row.start:.1f} | {row.latency:.0f} | {row.throughput:.1f} "
            f"| {row.p50:.0f} | {row.p99:.0f} | {row.health:.1f} | {row.resident:.0f} "
            f"| {row.load:.1%} |"
        )
    plain, fp32, int8 = (figures[mode] for mode in (PLAIN, FP32, INT8))
    fastest = max(fp32, int8, key=lambda row: row.throughput)
    print("\n| | | bar | |\n|---|---:|---:|---|")
    for name, value, bar, good in (
        ("fp32, latency of 1 client", fp32.latency / plain.latency, 0.65, "less"),
        (f"fp32, images/s of {CLIENTS} clients", fp32.throughput / plain.throughput, 1.6, "more"),
        (f"fp32, p99 of {CLIENTS} clients", fp32.p99 / plain.p99, 0.65, "less"),
        ("fastest, images/s", fastest.throughput / plain.throughput, 2.5, "more"),
        ("/health p99, ms", max(fp32.health, int8.health), 50, "less"),
        ("start to ready, s", max(fp32.start, int8.start), 10, "less"),
    ):
        met = value <= bar if good == "less" else value >= bar
        sign = "<=" if good == "less" else ">="
        print(f"| {name} | {value:.2f} | {sign} {bar:g} | {'' if met else 'misses the bar'} |")


def _compare(answers: dict[str, Probabilities]) -> None:
    """Print how far the answers of ours are from the plain ones.

    The baseline decodes the whole image, ours at the scale that is needed.
    """
    for mode in (FP32, INT8):
        pairs = [(answers[PLAIN][image], answers[mode][image]) for image in answers[PLAIN]]
        difference = max(float(abs(plain - ours).max()) for plain, ours in pairs)
        same = sum(plain.argmax() == ours.argmax() for plain, ours in pairs)
        print(
            f"{mode}: probabilities within {difference:.4f} of plain, {same} of {len(pairs)} "
            "labels the same"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="of 16 clients in each round")
    parser.add_argument("--one-cpu", action="store_true", help="services and load on one core")
    arguments = parser.parse_args()
    if arguments.one_cpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rounds: dict[str, list[Figures]] = {PLAIN: [], FP32: [], INT8: []}
    answers: dict[str, Probabilities] = {}
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        images.make(root / "images", IMAGES)
        bundle = models.publish(root / "data", models.TINY, SEED)
        print(f"{machine()}, {len(os.sched_getaffinity(0))} of the cores used", flush=True)
        for number in range(arguments.rounds):
            for mode, figures in rounds.items():
                figure, answers[mode] = measure(mode, root, bundle, arguments.seconds)
                figures.append(figure)
                print(f"round {number + 1}, {mode}: {figure}", flush=True)
    print(f"\n{CLIENTS} clients, medians of {arguments.rounds} rounds of {arguments.seconds:g} s\n")
    _show({mode: medians(figures) for mode, figures in rounds.items()})
    print()
    _compare(answers)


if __name__ == "__main__":
    main()
