"""What a retraining would take on many more images, by the costs of one."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.scaling.costs import Cost, each

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
# How often all pairs are compared: across splits before a training and a release, and in the audit,
# which also compares embeddings. The audit's costs are taken for each.
PAIRS: Mapping[str, float] = {"leakage check": TEST + VAL, "report": 1, "release": TEST + VAL}


def hours(
    costs: Mapping[str, Sequence[Cost]],
    sizes: Sequence[int],
    units: Mapping[str, float],
    pairs: Cost,
    compared: int,
) -> Projection:
    """Hours of one processor by step, for each of :data:`DATASETS`.

    Args:
        costs: of each step, by size.
        sizes: images.
        units: seconds of an image at the sizes of ``full``.
        pairs: what it took to compare that many images with each other.
        compared: images.
    """
    found = {}
    for step, of_step in costs.items():
        linear = each([cost.seconds for cost in of_step], sizes)
        linear += sum(share * units[unit] for unit, share in WORK.get(step, {}).items())
        square = PAIRS.get(step, 0) * pairs.seconds / compared**2
        found[step] = [(linear * n + square * n**2) / 3600 for n in DATASETS.values()]
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
