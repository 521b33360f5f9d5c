"""Work in proportion to what is new: ``python -m benchmarks.growth``.

Each dataset grows by nothing, by 1 % and by 10 %. Of several sizes, as in 1x, 4x and 16x of 5,000
small images that are made up, the exponent is printed, too: 1 is in proportion to the size::

    python -m benchmarks.growth --images 5000 20000 80000 --scale 0.25
"""

import argparse
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from benchmarks import images
from benchmarks.measure import machine
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning import networks
from cxr_assets.learning.embeddings import embed
from cxr_assets.radiographs import dataset, leakage, raw
from cxr_assets.radiographs.preparation import prepare

# A tiny backbone with random weights: embedding costs little beside the rest, but not nothing.
OVERRIDES = (
    *("probe.hidden_size=64", "probe.num_hidden_layers=2", "probe.num_attention_heads=2"),
    *("probe.patch_size=14", "data.image_size=112"),
)


class Seconds(NamedTuple):
    """Seconds of each step."""

    collect: float
    prepare: float
    embed: float
    leakage: float


def week(experiment: Experiment, layout: Layout, backbone: PreTrainedModel) -> Seconds:
    """All steps of a run before training, on the images that are there."""

    def quiet(line: str) -> None:
        pass

    def clocked(step: Callable[[], object]) -> float:
        started = time.perf_counter()
        step()
        return time.perf_counter() - started

    def processed() -> None:
        raw_images = raw.read(layout)
        prepare(layout, raw_images, experiment.data, experiment.classes, quiet)

    def embedded() -> None:
        rows = dataset.manifest(layout.processed).query("kept and split != 'test'")
        embed(backbone, layout, rows, quiet)

    return Seconds(
        clocked(lambda: raw.collect(experiment.data, experiment.classes, layout, quiet)),
        clocked(processed),
        clocked(embedded),
        clocked(lambda: leakage.pairs_across_splits(layout.processed)),
    )


def add(source: Path, folder: Path, count: int) -> None:
    """Copy the next ``count`` images to the source, those of test among them."""
    known = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    every = sorted(path for path in folder.rglob("*.jp*g") if path.is_file())
    # Evenly over the folder, so that every class and split grows.
    fresh = [path for path in every if path.relative_to(folder) not in known]
    for path in fresh[:: max(1, len(fresh) // count)][:count]:
        target = source / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def steps_of(first: int) -> dict[str, int]:
    """How many images are new in each step of a dataset that starts with ``first``."""
    return {"all": first, "none": 0, "1 %": max(1, first // 100), "10 %": first // 10}


def grow(first: int, folder: Path, root: Path) -> dict[str, Seconds]:
    """Print the rows of a dataset that starts with ``first`` images, and return their seconds."""
    steps, measured = steps_of(first), {}
    source = root / "source"
    experiment = compose("scratch", [*OVERRIDES, f"data.folder={source}"])
    torch.manual_seed(0)
    network = networks.dinov2_config(experiment.probe, 112, experiment.classes)
    backbone = networks.build(network).dinov2
    for name, number in steps.items():
        if number:
            add(source, folder, number)
        taken = measured[name] = week(experiment, Layout(root / "data"), backbone)
        if name == "all":
            scratch = taken
        elif number:
            scratch = week(experiment, Layout(root / f"fresh-{number}"), backbone)
        total = sum(1 for path in source.rglob("*") if path.is_file())
        figures = " | ".join(f"{value:.2f}" for value in (*taken, sum(taken), sum(scratch)))
        share = sum(taken) / sum(scratch)
        print(f"| {total:,} | {name} | {figures} | {share:.0%} |", flush=True)
    return measured


def show_exponents(measured: dict[int, dict[str, Seconds]]) -> None:
    """Print how the seconds of each step grow from the smallest dataset to the largest."""
    small, large = min(measured), max(measured)
    print(f"\nGrowth exponents from {small:,} to {large:,} images: 1 is in proportion to them\n")
    print("| new | collect | prepare | embed | leakage | all |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, before in measured[small].items():
        after = measured[large][name]
        ratios = [b / a for a, b in zip((*before, sum(before)), (*after, sum(after)), strict=True)]
        exponents = [math.log(ratio) / math.log(large / small) for ratio in ratios]
        print(f"| {name} | {' | '.join(f'{exponent:.2f}' for exponent in exponents)} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=int, nargs="+", default=[500], help="of the first dataset: 5000 20000"
    )
    parser.add_argument("--folder", type=Path, help="of images, with train/ and test/")
    parser.add_argument(
        "--scale", type=float, default=1, help="of images that are made up; 1 is Kaggle's size"
    )
    arguments = parser.parse_args()
    print(f"\nThe steps before a training, in seconds\n{machine()}\n")
    print("| images | new | collect | prepare | embed | leakage | all | from scratch | share |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    measured = {}
    with TemporaryDirectory() as made:
        folder: Path | None = arguments.folder
        if folder is None:
            folder = Path(made)
            needed = max(sum(steps_of(first).values()) for first in arguments.images)
            images.make(folder, needed, arguments.scale)
        elif len(list(folder.rglob("*.jp*g"))) < max(arguments.images):
            parser.error(f"{folder} has fewer than {max(arguments.images):,} images")
        for first in arguments.images:
            with TemporaryDirectory() as temporary:
                measured[first] = grow(first, folder, Path(temporary))
    if len(measured) > 1:
        show_exponents(measured)


if __name__ == "__main__":
    main()
