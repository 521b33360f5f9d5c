"""What a retraining would take on many more images, by the costs of one."""

from collections.abc import Mapping, Sequence

from benchmarks.scaling.costs import Cost, each

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
) -> dict[str, list[float]]:
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


def gigabytes(
    costs: Mapping[str, Sequence[Cost]], sizes: Sequence[int], field: str
) -> dict[str, list[float]]:
    """Memory or disk by step, for each of :data:`DATASETS`, beyond what no image takes."""
    return {
        step: [
            each([getattr(cost, field) for cost in of_step], sizes) * n / 1e9
            for n in DATASETS.values()
        ]
        for step, of_step in costs.items()
    }
