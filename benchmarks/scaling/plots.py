"""The plots of what was measured, and of what is projected from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import machine
from benchmarks.scaling.costs import Cost
from benchmarks.scaling.projection import DATASETS, Projection
from cxr_assets.evaluation.plots import COLOURS

Costs = Mapping[str, Sequence[Cost]]
# Field and unit of a cost, by title of its panel.
_UNITS = {"hours of one processor": ("seconds", 3600), "memory GB": ("memory", 1e9)}
_UNITS |= {"disk GB": ("disk", 1e9)}


def measured(
    path: Path, sizes: Sequence[int], of_images: Costs, sides: Sequence[int], of_pixels: Costs
) -> None:
    """Time against images and against pixels, on logarithmic scales.

    Args:
        path: of the PNG.
        sizes: images.
        of_images: costs of each step, by size.
        sides: pixels a side of the smallest number of images.
        of_pixels: costs of each step, by side.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, places, costs in zip(panels, (sizes, sides), (of_images, of_pixels), strict=True):
        for number, (name, found) in enumerate(costs.items()):
            _line(axes, number, places, [cost.seconds for cost in found], "-", name)
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.minorticks_off()
    panels[0].set_xlabel(f"images, {sides[0]} pixels a side")
    panels[0].set_ylabel("seconds of a processor")
    panels[1].set_xlabel(f"pixels a side, {sizes[0]} images")
    _finish(figure, f"Measured; {machine()}", path)


def projected(
    path: Path, sizes: Sequence[int], of_images: Costs, projections: Mapping[str, Projection]
) -> None:
    """Time, memory and disk of larger datasets, dashed, beside what was measured.

    Args:
        path: of the PNG.
        sizes: images.
        of_images: costs of each step, by size.
        projections: by the titles of the tables.
    """
    figure = Figure(figsize=(14, 5), layout="constrained")
    for axes, (title, projection) in zip(figure.subplots(1, 3), projections.items(), strict=True):
        field, unit = _UNITS[title]
        for number, (name, values) in enumerate(projection.items()):
            found = [getattr(cost, field) / unit for cost in of_images[name]]
            _line(axes, number, sizes, found, "-", name)
            _line(axes, number, list(DATASETS.values()), values, "--")
        axes.axvspan(sizes[-1] * 2, max(DATASETS.values()) * 2, color="0.95", zorder=0)
        axes.set_xticks([sizes[0], sizes[-1], *DATASETS.values()])
        axes.set_xticklabels(
            [f"{sizes[0]:,}", f"{sizes[-1]:,}", *DATASETS], rotation=45, ha="right"
        )
        axes.minorticks_off()
        axes.set_xlabel("images")
        axes.set_ylabel(title)
    _finish(figure, f"Solid: measured, {machine()}. Dashed, on grey: projected", path)


def _line(
    axes: Axes,
    number: int,
    places: Sequence[int],
    values: Sequence[float],
    dash: str,
    name: str | None = None,
) -> None:
    """One step; what takes nothing has no place on a logarithmic scale."""
    shown = [value if value > 0 else float("nan") for value in values]
    marker = "os"[number // len(COLOURS)]
    colour = COLOURS[number % len(COLOURS)]
    axes.loglog(places, shown, dash, marker=marker, color=colour, label=name)


def _finish(figure: Figure, title: str, path: Path) -> None:
    figure.axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.suptitle(title, fontsize="small")
    figure.savefig(path, dpi=110, metadata={"Software": None})
