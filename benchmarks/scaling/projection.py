"""What a retraining would take on many more images, by the costs of one."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.scaling.costs import Cost, each, exponent

# By step, a value for each of the datasets.
Projection = dict[str, list[float]]
# ChestX-ray14 and MIMIC-CXR, as published; then hospitals together.
DATASETS = {"ChestX-ray14": 112_120, "MIMIC-CXR": 377_110, "10 M": 10**7, "100 M": 10**8}
# Shares of train, validation and test: the defaults of data.val_fraction and data.test_fraction.
TRAIN, VAL, TEST = 0.7, 0.15, 0.15
# What an image takes of each unit of :mod:`benchmarks.scaling.units`, by step. An export answers
# validation images in fp32 and in int8, for which that of fp32 is taken; a report answers test
# images by the main model and embeds them for the probe and once more for the audit.
WORK: Mapping[str, Mapping[str, float]] = {
    "preparation": {"preparation": 1},
    "embedding and probe": {"embedding": TRAIN + VAL},
    "epoch": {"training": TRAIN, "pass": VAL},
    "export": {"pass": 2 * VAL},
    "report": {"pass": TEST, "embedding": 2 * TEST},
}
# How images are compared with each other, by step: each looks for similar ones, and the audit of a
# report for strange ones, too.
COMPARISONS: Mapping[str, Sequence[str]] = {
    "leakage check": ["similar"],
    "report": ["similar", "strange"],
    "release": ["similar"],
}


def hours(
    costs: Mapping[str, Sequence[Cost]],
    sizes: Sequence[int],
    units: Mapping[str, float],
    comparisons: Mapping[str, Sequence[Cost]],
    compared: Sequence[int],
) -> Projection:
    """Hours of one processor by step, for each of :data:`DATASETS`.

    Args:
        costs: of each step, by size.
        sizes: images.
        units: seconds of an image at the sizes of ``full``.
        comparisons: what it took to compare images with each other, by size; more of them as the
            exponent says.
        compared: these sizes, in images.
    """
    found = {}
    numbers = np.array(list(DATASETS.values()), np.float64)
    for step, of_step in costs.items():
        linear = each([cost.seconds for cost in of_step], sizes)
        linear += sum(share * units[unit] for unit, share in WORK.get(step, {}).items())
        seconds = linear * numbers
        for name in COMPARISONS.get(step, ()):
            taken = [cost.seconds for cost in comparisons[name]]
            seconds += taken[-1] * (numbers / compared[-1]) ** (exponent(taken) or 1)
        found[step] = (seconds / 3600).tolist()
    return found


def memory(costs: Mapping[str, Sequence[Cost]], sizes: Sequence[int]) -> Projection:
    """Gigabytes of memory by step, for each of :data:`DATASETS`, beyond what no image takes."""
    return {
        step: _gigabytes(each([cost.memory for cost in of_step], sizes))
        for step, of_step in costs.items()
    }


def disk(
    costs: Mapping[str, Sequence[Cost]],
    sizes: Sequence[int],
    prepared: Sequence[Cost],
    sides: Sequence[int],
    side: int,
) -> Projection:
    """Gigabytes of disk by step, for each of :data:`DATASETS`, beyond what no image takes.

    Args:
        costs: of each step, by size.
        sizes: images.
        prepared: costs of the preparation of ``sizes[0]`` images, by side.
        sides: pixels; the first is that of ``costs``.
        side: of prepared images, in pixels; between two of ``sides`` their size is interpolated.
    """
    found = {step: each([cost.disk for cost in of_step], sizes) for step, of_step in costs.items()}
    areas, sizes_on_disk = np.square(sides), [cost.disk / sizes[0] for cost in prepared]
    found["preparation"] += float(np.interp(side**2, areas, sizes_on_disk)) - sizes_on_disk[0]
    return {step: _gigabytes(one) for step, one in found.items()}


def _gigabytes(of_an_image: float) -> list[float]:
    return [of_an_image * n / 1e9 for n in DATASETS.values()]
