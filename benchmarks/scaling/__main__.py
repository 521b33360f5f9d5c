"""How cost grows with images, pixels and requests: ``python -m benchmarks.scaling``.

Each step of a retraining runs in a process of its own on n, 4n and 16n synthetic images, with small
networks; the kernel says what processor time and memory it took. Images are read from disk batch by
batch, as those of a large dataset are. ``docs/scaling.md`` projects from these figures.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from matplotlib.figure import Figure

from benchmarks import images
from benchmarks.measure import machine
from benchmarks.scaling import projection, units
from benchmarks.scaling.costs import FACTOR, Cost, exponent, measure
from benchmarks.scaling.steps import RETRAINING, answer, compare
from cxr_assets.evaluation.plots import COLOURS, DASHES
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout

SIDE, SIDES = 64, (64, 128, 256)
OVERRIDES = (
    *("trainer.max_epochs=1", "data.in_memory_limit=0"),
    *("probe.hidden_size=64", "probe.num_hidden_layers=2", "probe.num_attention_heads=2"),
)
# At the smallest size.
REQUESTS, COMPARED = 50, 1500
# Of synthetic images, of Kaggle's size.
SCALE = 0.2

Costs = dict[str, list[Cost]]


def retraining(folder: Path, root: Path, side: int = SIDE) -> dict[str, Cost]:
    """What each step takes on the images of a folder."""
    experiment = compose(
        "scratch", [*OVERRIDES, f"data.folder={folder}", f"data.image_size={side}"]
    )
    layout = Layout(root)
    root.mkdir()
    found = {}
    for name, step in RETRAINING.items():
        found[name] = cost = measure(partial(step, experiment, layout), root)
        print(f"{root.name}, {name}: {cost.seconds:.1f} s", flush=True)
    return found


def by_step(found: Iterable[dict[str, Cost]]) -> Costs:
    """The costs of each step, in the order of the sizes."""
    every = list(found)
    return {name: [one[name] for one in every] for name in RETRAINING}


def by_number(step: Callable[[int], object], sizes: Sequence[int], root: Path) -> list[Cost]:
    """What a step takes of a number of things."""
    return [measure(partial(step, size), root) for size in sizes]


def show(title: str, sizes: Sequence[int], costs: Costs) -> None:
    """Print the costs at all sizes, and the exponents."""
    print(f"\n{title}: {', '.join(f'{size:,}' for size in sizes)}\n")
    print("| | s of a processor | exponent | memory MB | exponent | disk MB |")
    print("|---|---|---|---|---|---|")
    for name, found in costs.items():
        cells = []
        for field, unit, digits in (("seconds", 1, 1), ("memory", 1e6, 0)):
            values = [getattr(cost, field) / unit for cost in found]
            power = exponent(values)
            cells.append(", ".join(f"{value:.{digits}f}" for value in values))
            cells.append("" if power is None else f"{power:.2f}")
        disk = ", ".join(f"{cost.disk / 1e6:.1f}" for cost in found)
        print(f"| {name} | {' | '.join(cells)} | {disk} |", flush=True)


def project(sizes: Sequence[int], of_images: Costs, pairs: Cost, compared: int) -> None:
    """Print what larger datasets would take."""
    each_image = units.measured()
    words = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in each_image.items())
    print(f"\nan image of 1330 x 970 at 224 pixels, networks of `full`: {words}")
    for title, table in (
        ("hours of one processor", projection.hours(of_images, sizes, each_image, pairs, compared)),
        ("memory GB", projection.gigabytes(of_images, sizes, "memory")),
        ("disk GB at 64 px", projection.gigabytes(of_images, sizes, "disk")),
    ):
        print(f"\n| {title} | {' | '.join(projection.DATASETS)} |\n|---|---|---|---|---|")
        for step, values in table.items():
            print(f"| {step} | {' | '.join(f'{value:,.2g}' for value in values)} |")


def draw(path: Path, sizes: Sequence[int], of_images: Costs, of_pixels: Costs) -> None:
    """Time against images and against pixels, on logarithmic scales."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, places, costs in zip(panels, (sizes, SIDES), (of_images, of_pixels), strict=True):
        for number, (name, found) in enumerate(costs.items()):
            values = [cost.seconds for cost in found]
            colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS)]
            axes.loglog(places, values, dash, marker="o", color=colour, label=name)
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.minorticks_off()
    panels[0].set_xlabel(f"images, {SIDE} pixels a side")
    panels[0].set_ylabel("seconds of a processor")
    panels[1].set_xlabel(f"pixels a side, {sizes[0]} images")
    panels[1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.suptitle(f"Measured; {machine()}", fontsize="small")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Measure, print the tables, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300, help="of the smallest dataset")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    given = parser.parse_args()
    torch.set_num_threads(1)  # a child has no other threads of its parent
    sizes, requests, compared = (
        [first * FACTOR**power for power in range(3)]
        for first in (given.images, REQUESTS, COMPARED)
    )
    print(machine())
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        for size in sizes:
            images.make(root / f"source-{size}", size, SCALE)
        smallest = root / f"source-{sizes[0]}"
        of_images = by_step(retraining(root / f"source-{n}", root / f"{n} images") for n in sizes)
        show("images", sizes, of_images)
        of_pixels = by_step(retraining(smallest, root / f"{side} px", side) for side in SIDES)
        show(f"pixels a side, {sizes[0]} images", SIDES, of_pixels)
        served = Layout(root / f"{sizes[0]} images")
        asked = by_number(partial(answer, served), requests, served.root)
        show("requests", requests, {"service": asked})
        pairs = by_number(compare, compared, root)
        show("images that are compared", compared, {"label audit": pairs})
    project(sizes, of_images, pairs[-1], compared[-1])
    if given.plot:
        draw(given.plot, sizes, of_images, of_pixels)


if __name__ == "__main__":
    main()
