"""The service against what a skilled user would put together: ``make bench-peers``.

LitServe with torch and with ONNX Runtime on a plain export, and BentoML with the latter, each as
its documentation proposes, in a virtual environment of their own. ConvNeXt V2 Tiny at 224 pixels
with random weights, images of 1330 x 970 pixels. In each round the services run in turn: one client
first, then sixteen at once; first on all processors, then on one, where load and service share it.
"""

import argparse
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from matplotlib.figure import Figure
from transformers import AutoModelForImageClassification

from benchmarks import images
from benchmarks.measure import machine
from benchmarks.serving import models, speed
from benchmarks.serving.server import free_port, serve
from benchmarks.serving.speed import CLIENTS, FP32, IMAGES, INT8, SEED, Figures, Probabilities
from cxr_assets.evaluation.plots import COLOURS

PYTHON = Path(".venv-peers/bin/python")
PLAIN_FILE = "plain.onnx"
# Of a command: what the port, the bundle and the plain ONNX file take the place of.
PORT, BUNDLE, MODEL = "PORT", "BUNDLE", "MODEL"
_LITSERVE = ("-m", "benchmarks.serving.litserve_onnx", PORT, MODEL)
TORCH, WORKERS = "LitServe, torch", "LitServe, ONNX Runtime, a worker for each CPU"
PEERS: dict[str, tuple[str, ...]] = {
    TORCH: ("-m", "benchmarks.serving.litserve_torch", PORT, BUNDLE),
    "LitServe, ONNX Runtime": _LITSERVE,
    "LitServe, ONNX Runtime, batches of 8": (*_LITSERVE, "--batch", "8"),
    # Its documentation proposes this for a CPU.
    WORKERS: (*_LITSERVE, "--workers", str(len(os.sched_getaffinity(0)))),
    "BentoML, ONNX Runtime": (
        *("-m", "bentoml", "serve", "benchmarks.serving.bento:Model"),
        *("--host", "127.0.0.1", "--port", PORT),
    ),
}
MODES = (FP32, INT8)
# On one processor torch is the slowest by far, and a worker for each is one.
ON_ONE = (*(name for name in PEERS if name not in (TORCH, WORKERS)), *MODES)

Rounds = dict[str, list[Figures]]


@dataclass(frozen=True)
class Verdict:
    """One bar.

    Attributes:
        name: of what is compared.
        value: a ratio to the best peer in this, or a figure of its own.
        bar: that it must reach.
        least: whether the value must be ``bar`` at least, instead of at most.
    """

    name: str
    value: float
    bar: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        return self.value >= self.bar if self.least else self.value <= self.bar


def verdicts(medians: Mapping[str, Figures]) -> list[Verdict]:
    """Ours against the best peer in each figure, which need not be the same peer."""
    peers = [figures for name, figures in medians.items() if name not in MODES]
    throughput = max(peer.throughput for peer in peers)
    p99 = min(peer.p99 for peer in peers)
    latency = min(peer.latency for peer in peers)
    bars = []
    for name, least in ((FP32, 1.4), (INT8, 2.5)):
        ours = medians[name]
        bars += [
            Verdict(
                f"{name}: images/s of {CLIENTS} clients", ours.throughput / throughput, least, True
            ),
            Verdict(f"{name}: p99 of {CLIENTS} clients", ours.p99 / p99, 0.6),
            Verdict(f"{name}: 1 client", ours.latency / latency, 0.7),
            Verdict(f"{name}: start to ready, s", ours.start, 2),
        ]
    resident = medians[FP32].resident * 2**20 / 1e6
    return [*bars, Verdict(f"{FP32}: resident, MB", resident, 250)]


def export(bundle: Path, path: Path) -> None:
    """The network of a bundle in ONNX, as torch exports it."""
    network = AutoModelForImageClassification.from_pretrained(bundle).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes are traced as constants, which they are
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, 224, 224),),
            path,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes={"pixel_values": {0: "images"}, "logits": {0: "images"}},
            opset_version=20,
            dynamo=False,
        )


def measure(name: str, root: Path, bundle: Path, seconds: float) -> tuple[Figures, Probabilities]:
    """Run one service once.

    Args:
        name: of a peer, FP32 or INT8.
        root: holds ``images``, ``data`` and the plain ONNX file.
        bundle: that is served.
        seconds: that all clients send for.

    Raises:
        RuntimeError: an image was not classified.
    """
    if name in MODES:
        return speed.measure(name, root, bundle, seconds)
    port, model = free_port(), str(root / PLAIN_FILE)
    given = {PORT: str(port), BUNDLE: str(bundle), MODEL: model}
    arguments = [given.get(word, word) for word in PEERS[name]]
    environment = {MODEL: model, "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(root)}
    ready = "/readyz" if "bentoml" in arguments else "/health"
    with serve(arguments, root, port, environment, ready, python=PYTHON.absolute()) as server:
        return speed.observe(name, server, root / "images", seconds)


def show(title: str, rounds: Rounds, answers: Mapping[str, Probabilities]) -> None:
    """Print medians and ranges over the rounds, and whether each bar is met."""
    print(f"\n## {title}\n")
    print("| | start s | 1 client ms | images/s | p99 ms | MiB | differs by |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    exact = next(iter(answers.values()))
    for name, figures in rounds.items():
        cells = " | ".join(
            _cell([getattr(figure, field) for figure in figures], digits)
            for field, digits in (
                ("start", 1),
                ("latency", 0),
                ("throughput", 1),
                ("p99", 0),
                ("resident", 0),
            )
        )
        differs = max(float(abs(answers[name][image] - exact[image]).max()) for image in exact)
        print(f"| {name} | {cells} | {differs:.4f} |")
    print("\n| | | bar | |\n|---|---:|---:|---|")
    for verdict in verdicts({name: speed.medians(of) for name, of in rounds.items()}):
        print(
            f"| {verdict.name} | {verdict.value:.2f} | {'>=' if verdict.least else '<='} "
            f"{verdict.bar:g} | {'met' if verdict.met else 'missed'} |"
        )


def _cell(values: Sequence[float], digits: int) -> str:
    middle, low, high = (f"{of(values):.{digits}f}" for of in (median, min, max))
    return f"{middle} ({low} to {high})"


def draw(parts: Mapping[str, Rounds], path: Path) -> None:
    """Medians as bars, with the range over the rounds; one row of plots for each part."""
    figure = Figure(figsize=(11, 1 + 2.4 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), 3, squeeze=False, sharey="row")
    for (title, rounds), row in zip(parts.items(), panels, strict=True):
        for axes, (field, label) in zip(
            row,
            (
                ("throughput", f"images/s of {CLIENTS} clients (more is better)"),
                ("latency", "1 client, ms (less is better)"),
                ("resident", "memory, MiB (less is better)"),
            ),
            strict=True,
        ):
            values = {name: [getattr(one, field) for one in of] for name, of in rounds.items()}
            middle = [median(of) for of in values.values()]
            below = [median(of) - min(of) for of in values.values()]
            above = [max(of) - median(of) for of in values.values()]
            axes.barh(
                list(values),
                middle,
                xerr=[below, above],
                color=[COLOURS[0] if name in MODES else "#999999" for name in values],
            )
            axes.set_xlabel(label)
        row[0].set_title(title, loc="left", fontsize="medium")
        row[0].invert_yaxis()
    figure.suptitle(f"ConvNeXt V2 Tiny, 224 pixels; {machine()}", fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    """Print the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help=f"of {CLIENTS} clients")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    given = parser.parse_args()
    processors = os.sched_getaffinity(0)
    parts: dict[str, Rounds] = {}
    began = time.monotonic()
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        images.make(root / "images", IMAGES)
        bundle = models.publish(root / "data", models.TINY, SEED)
        export(bundle, root / PLAIN_FILE)
        for used, names in ((processors, (*PEERS, *MODES)), ({min(processors)}, ON_ONE)):
            os.sched_setaffinity(0, used)
            title = f"{len(used)} of {len(processors)} CPUs"
            rounds: Rounds = {name: [] for name in names}
            answers: dict[str, Probabilities] = {}
            for number in range(given.rounds):
                for name, figures in rounds.items():
                    figure, answers[name] = measure(name, root, bundle, given.seconds)
                    figures.append(figure)
                    print(f"{title}, round {number + 1}, {name}: {figure}", flush=True)
            parts[title] = rounds
            show(f"{title}: {machine()}", rounds, answers)
    os.sched_setaffinity(0, processors)
    print(f"\nrounds: {given.rounds}; {time.monotonic() - began:.0f} s in all")
    if given.plot:
        draw(parts, given.plot)


if __name__ == "__main__":
    main()
