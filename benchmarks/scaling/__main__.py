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

from benchmarks import images
from benchmarks.measure import machine
from benchmarks.scaling import plots, projection, units
from benchmarks.scaling.costs import FACTOR, Cost, each, exponent, measure
from benchmarks.scaling.steps import RETRAINING, answer, find_similar, find_strange
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout

SIDE, SIDES = 64, (64, 128, 256)
OVERRIDES = (
    *("trainer.max_epochs=1", "data.in_memory_limit=0"),
    # As wide as that of `full`: what an embedding takes in memory is the same.
    *("probe.hidden_size=384", "probe.num_hidden_layers=2", "probe.num_attention_heads=6"),
)
# At the smallest size.
REQUESTS, COMPARED = 50, 12_500
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


def show_units(sizes: Sequence[int], of_images: Costs, of_units: dict[str, float]) -> None:
    """Print what one image takes: at the sizes of ``full``, and more of each step."""
    words = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in of_units.items())
    print(f"\nan image of 1330 x 970 at {units.SIDE} pixels, networks of `full`: {words}")
    print("\n| an image more | ms of a processor | memory kB | disk kB |\n|---|---|---|---|")
    for step, costs in of_images.items():
        seconds, memory, disk = (each(values, sizes) for values in zip(*costs, strict=True))
        print(f"| {step} | {1000 * seconds:.2f} | {memory / 1000:.1f} | {disk / 1000:.1f} |")


def show_projections(projections: dict[str, projection.Projection]) -> None:
    """Print what larger datasets would take."""
    for title, table in projections.items():
        print(f"\n| {title} | {' | '.join(projection.DATASETS)} |\n|---|---|---|---|---|")
        for step, values in table.items():
            cells = (f"{value:,.0f}" if value >= 10 else f"{value:.2g}" for value in values)
            print(f"| {step} | {' | '.join(cells)} |")


def main() -> None:
    """Measure, print the tables, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300, help="of the smallest dataset")
    parser.add_argument(
        "--plot", type=Path, help="PNG to write; that of the projection lies beside it"
    )
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
        comparisons = {
            name: by_number(find, compared, root)
            for name, find in (("similar", find_similar), ("strange", find_strange))
        }
        show("images that are compared", compared, comparisons)
    of_units = units.measured()
    show_units(sizes, of_images, of_units)
    prepared = of_pixels["preparation"]
    projections = {
        "hours of one processor": projection.hours(
            of_images, sizes, of_units, comparisons, compared
        ),
        "memory GB": projection.memory(of_images, sizes),
        "disk GB": projection.disk(of_images, sizes, prepared, SIDES, units.SIDE),
    }
    show_projections(projections)
    if given.plot:
        plots.measured(given.plot, sizes, of_images, SIDES, of_pixels)
        second = given.plot.with_stem(f"{given.plot.stem}-projected")
        plots.projected(second, sizes, of_images, projections)


if __name__ == "__main__":
    main()
