"""How far metrics would move with other patients: the bootstrap over patients."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cxr_serving.model.comparison import Difference
from cxr_serving.model.metrics import Interval

# Efron & Tibshirani 1993, An Introduction to the Bootstrap: 1000 or more for an interval.
RESAMPLES = 1000
_LEVEL = 0.95
_SEED = 0
_NO_IMAGE = -1
# Draws whose images are counted at once: memory is in proportion to them and to the images.
_BLOCK = 10


def draws(patients: Sequence[str]) -> torch.Tensor:
    """Resample whole patients with replacement, as the images of one patient are correlated.

    (Cluster bootstrap; Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x.) The draws are
    always the same, so that two models can be compared draw by draw.

    Args:
        patients: [N], the patient of each image.

    Returns:
        int32 [RESAMPLES, L]: indices of images in 0..N-1, padded with -1.
    """
    _, patient, images = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    # For a million images, indices of 32 bits are 4 GB.
    ordered = np.argsort(patient, kind="stable").astype(np.int32)
    by_patient = np.split(ordered, np.cumsum(images)[:-1])
    # Drawn twice, as all draws beside their padded copy would take twice the memory.
    longest = max(images[chosen].sum() for chosen in _resampled(len(images)))
    padded = np.full((RESAMPLES, longest), _NO_IMAGE, np.int32)
    for row, chosen in zip(padded, _resampled(len(images)), strict=True):
        drawn = np.concatenate([by_patient[index] for index in chosen])
        row[: len(drawn)] = drawn
    return torch.from_numpy(padded)


def _resampled(patients: int) -> Iterator[npt.NDArray[np.int64]]:
    """Patients [N] of each draw, among so many."""
    generator = np.random.default_rng(_SEED)
    for _ in range(RESAMPLES):
        yield generator.integers(patients, size=patients)


def scores(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
    drawn: torch.Tensor,
) -> pd.DataFrame:
    """The metrics of :func:`cxr_assets.evaluation.metrics.evaluate` in each draw.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.
        classes: C names.
        drawn: what :func:`draws` returns.

    Returns:
        One row per draw. The columns of :func:`top1`, then ``auroc_macro_ovr``,
        ``average_precision_macro_ovr``, and for each class ``<class>/auroc`` and
        ``/average_precision``. A class that a draw lacks has none (NaN), and the means are over the
        others; a draw of a single class has neither AUROC nor average precision.
    """
    table = top1(probabilities, targets, classes, drawn)
    beliefs, blocks = np.asarray(probabilities), []
    for rows in _blocks(drawn):
        counts = np.stack(
            [np.bincount(row[row != _NO_IMAGE], minlength=len(targets)) for row in rows]
        )
        of_classes = [
            _areas(beliefs[:, index], targets == index, counts) for index in range(len(classes))
        ]
        blocks.append(np.array(of_classes))
    areas = np.concatenate(blocks, axis=2)
    for index, name in enumerate(("auroc", "average_precision")):
        values = areas[:, index].T
        table[f"{name}_macro_ovr"] = _mean(values)
        table[[f"{label}/{name}" for label in classes]] = values
    return table


def _areas(
    scores: npt.NDArray[np.floating[Any]],
    positive: npt.NDArray[np.bool_],
    counts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Area under the ROC curve and average precision of N scores in each of R draws.

    It takes a tenth of the time of giving every draw to torchmetrics: scores are sorted once.
    Equal scores are one threshold. The first is the trapezoidal rule, the second the step-wise sum
    of precision over recall without interpolation, as in torchmetrics and scikit-learn.

    Args:
        scores: [N].
        positive: [N].
        counts: [R, N], how often a draw has an image.

    Returns:
        Two times [R], NaN where a draw has no positive or no negative.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    true, false = (
        np.pad(np.cumsum(counts[:, order] * kind[order], axis=1)[:, last], ((0, 0), (1, 0)))
        for kind in (positive, ~positive)
    )
    rise, mean = np.diff(true), (true[:, 1:] + true[:, :-1]) / 2
    positives, negatives = true[:, -1], false[:, -1]
    both = (positives > 0) & (negatives > 0)
    with np.errstate(invalid="ignore"):
        auroc = (np.diff(false) * mean).sum(axis=1) / (positives * negatives)
        called = true[:, 1:] + false[:, 1:]
        precision = true[:, 1:] / np.maximum(called, 1)
        average = (rise * precision).sum(axis=1) / positives
    return np.where(both, auroc, np.nan), np.where(both, average, np.nan)


def top1(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
    drawn: torch.Tensor,
    member: npt.NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """The metrics of the top-1 class in each draw.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.
        classes: C names.
        drawn: what :func:`draws` returns.
        member: [N], the images that count; all, if it is left out.

    Returns:
        One row per draw. Columns ``accuracy`` (micro), ``macro_f1``, and for each class
        ``<class>/precision``, ``/recall`` and ``/f1``. A class that a draw lacks has none (NaN),
        and the means are over the others; a draw without images that count has no metric.
    """
    number = len(classes)
    cell = targets * number + probabilities.argmax(axis=1)
    if member is None:
        member = np.ones(len(targets), dtype=bool)
    counted = np.append(member, False)  # the last is where draws are padded with -1
    # Confusion matrices, [RESAMPLES, C, C]: a second faster than torchmetrics for each subgroup.
    counts = np.concatenate([_confusion(cell, counted, rows, number) for rows in _blocks(drawn)])
    right = counts.diagonal(axis1=1, axis2=2)
    support, called = counts.sum(axis=2), counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        recall = right / support
        precision = np.where(support > 0, right / np.maximum(called, 1), np.nan)
        f1 = np.where(support > 0, 2 * right / (support + called), np.nan)
        table = {"accuracy": right.sum(axis=1) / support.sum(axis=1), "macro_f1": _mean(f1)}
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        table |= {f"{label}/{name}": values[:, index] for index, label in enumerate(classes)}
    return pd.DataFrame(table)


def _confusion(
    cell: npt.NDArray[np.int64],
    counted: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.int32],
    number: int,
) -> npt.NDArray[np.int64]:
    """Confusion matrices int64 [R, C, C] of draws [R, L]; ``cell`` [N] is true * C + predicted."""
    draw, place = np.nonzero(counted[rows])
    cells = draw * number**2 + cell[rows[draw, place]]
    return np.bincount(cells, minlength=len(rows) * number**2).reshape(-1, number, number)


def _blocks(drawn: torch.Tensor) -> list[npt.NDArray[np.int32]]:
    return np.split(drawn.numpy(), range(_BLOCK, len(drawn), _BLOCK))


def means(
    values: npt.NDArray[np.float64], drawn: torch.Tensor, member: npt.NDArray[np.bool_]
) -> pd.Series:
    """Mean over some of the images in each draw; NaN where a draw has none of them.

    Args:
        values: [N].
        drawn: what :func:`draws` returns.
        member: [N], the images that count.
    """
    value, counted = np.append(values * member, 0), np.append(member, False)
    with np.errstate(invalid="ignore"):
        return pd.Series([value[row].sum() / counted[row].sum() for row in drawn.numpy()])


def _mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Unweighted over the classes that have one; NaN where none has."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        means: npt.NDArray[np.float64] = np.nanmean(values, axis=1)
    return means


def interval(values: pd.Series) -> Interval | None:
    """The 95 % percentile interval of a metric over the draws; None where most define none.

    The plain percentile method, neither bias-corrected nor studentised; quantiles are interpolated
    linearly (Hyndman & Fan 1996, type 7).
    """
    defined = values.dropna()
    if len(defined) < len(values) / 2:
        return None
    tail = (1 - _LEVEL) / 2
    ends = defined.quantile([tail, 1 - tail], interpolation="linear")
    low, high = (round(float(end), 6) for end in ends)
    return low, high


def difference(values: pd.Series, estimate: float) -> Difference:
    """A difference between two models on the same images, and its significance.

    Args:
        values: the difference in each draw.
        estimate: the difference on all images.

    Returns:
        Its ``p`` is the two-sided achieved significance level of the hypothesis of no difference
        (Efron & Tibshirani 1993, chapter 15), with one draw added to each side, so that it is
        never 0.
    """
    defined = values.dropna()
    tail = min((defined <= 0).sum(), (defined >= 0).sum()) + 1
    return Difference(
        estimate=round(estimate, 6),
        interval=interval(values),
        p=round(min(1.0, float(2 * tail / (len(defined) + 1))), 6),
    )
