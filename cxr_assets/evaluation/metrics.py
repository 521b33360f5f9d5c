"""Metrics of the predictions on a set of labelled images."""

from collections.abc import Callable, Sequence
from typing import Any, SupportsFloat

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torchmetrics.functional import classification

from cxr_serving.model.metrics import Averages, ClassificationReport, ClassScores, Scores

_SCORES = ("precision", "recall", "f1")


def evaluate(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
) -> Scores:
    """Compute the metrics of a classifier, all by torchmetrics.

    A class without images has no precision, recall, F1 or AUROC: those are None, it is named under
    ``absent_classes``, and the averages run over the classes that are present. Precision and F1 of
    a present class that is never predicted are 0, as in scikit-learn.

    Args:
        probabilities: [N, C], each in 0..1, rows summing to 1.
        targets: [N], class indices in 0..C-1.
        classes: C names in index order.

    Returns:
        Every score in 0..1 or None, rounded to six decimals.

    Raises:
        ValueError: the shapes do not match, or a value is not a probability or a class index.
    """
    _check(probabilities, targets, len(classes))
    scores = torch.from_numpy(np.asarray(probabilities, dtype=np.float64))
    truth = torch.from_numpy(np.asarray(targets, dtype=np.int64))
    predicted = torch.from_numpy(probabilities.argmax(axis=1))
    per_class = {"num_classes": len(classes), "average": None, "zero_division": 0}
    confusion = classification.multiclass_confusion_matrix(predicted, truth, len(classes))
    precision = classification.multiclass_precision(predicted, truth, **per_class).tolist()
    recall = classification.multiclass_recall(predicted, truth, **per_class).tolist()
    f1 = classification.multiclass_f1_score(predicted, truth, **per_class).tolist()
    support = confusion.sum(dim=1).tolist()
    accuracy = _number(
        classification.multiclass_accuracy(predicted, truth, len(classes), average="micro")
    )

    present = [index for index, images in enumerate(support) if images]
    columns = dict(zip(_SCORES, (precision, recall, f1), strict=True))
    by_class = {
        name: ClassScores(
            **{key: _number(columns[key][index]) if support[index] else None for key in _SCORES},
            support=support[index],
        )
        for index, name in enumerate(classes)
    }
    macro = {key: _number(np.mean([columns[key][i] for i in present])) for key in _SCORES}
    weighted = {key: _number(np.average(columns[key], weights=support)) for key in _SCORES}
    areas = {
        name: [_area(metric, scores[:, index], truth == index) for index in range(len(classes))]
        for name, metric in (
            ("auroc", classification.binary_auroc),
            ("average_precision", classification.binary_average_precision),
        )
    }
    defined = {
        name: [area for area in values if area is not None] for name, values in areas.items()
    }
    return Scores(
        classification_report=ClassificationReport(
            accuracy=accuracy,
            macro_average=Averages(**macro, support=len(truth)),
            weighted_average=Averages(**weighted, support=len(truth)),
            **by_class,
        ),
        confusion_matrix=confusion.tolist(),
        confusion_shares=[
            [_number(cell / images) if images else None for cell in row]
            for row, images in zip(confusion.tolist(), support, strict=True)
        ],
        classes=tuple(classes),
        absent_classes=tuple(
            name for name, images in zip(classes, support, strict=True) if not images
        ),
        auroc_macro_ovr=_number(np.mean(defined["auroc"])) if defined["auroc"] else None,
        average_precision_macro_ovr=(
            _number(np.mean(defined["average_precision"])) if defined["average_precision"] else None
        ),
        auroc_ovr=dict(zip(classes, areas["auroc"], strict=True)),
        average_precision_ovr=dict(zip(classes, areas["average_precision"], strict=True)),
        accuracy=accuracy,
        macro_f1=macro["f1"],
        images=len(truth),
    )


def _number(value: SupportsFloat) -> float:
    """Six decimals: torchmetrics computes in single precision, which has no more."""
    return round(float(value), 6)


def roc(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
) -> pd.DataFrame:
    """ROC curves of each class versus the rest; classes without one are left out.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.
        classes: C names.

    Returns:
        One row per threshold: ``class``, ``threshold``, ``false_positive_rate``,
        ``true_positive_rate``.
    """
    columns = ["class", "threshold", "false_positive_rate", "true_positive_rate"]
    curves = [pd.DataFrame(columns=columns)]
    for index, name in enumerate(classes):
        positive = torch.from_numpy(targets == index)
        if positive.all() or not positive.any():
            continue
        scores = torch.from_numpy(np.asarray(probabilities[:, index], dtype=np.float64))
        false_positive, true_positive, threshold = classification.binary_roc(
            scores, positive.long()
        )
        values = (name, threshold, false_positive, true_positive)
        curves.append(pd.DataFrame(dict(zip(columns, values, strict=True))))
    return pd.concat(curves[1:] or curves, ignore_index=True)


def _area(
    metric: Callable[..., torch.Tensor], scores: torch.Tensor, positive: torch.Tensor
) -> float | None:
    """Of one class against the rest; None where either side is empty."""
    if positive.all() or not positive.any():
        return None
    return _number(metric(scores, positive.long()))


def _check(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    classes: int,
) -> None:
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1]:
        raise ValueError(
            f"probabilities of shape {probabilities.shape} and targets of shape {targets.shape}: "
            "expected [N, C] and [N]"
        )
    if len(targets) == 0:
        raise ValueError("there is no image to evaluate")
    if probabilities.shape[1] != classes:
        raise ValueError(f"{probabilities.shape[1]} probabilities per image for {classes} classes")
    if (
        not np.issubdtype(targets.dtype, np.integer)
        or not ((targets >= 0) & (targets < classes)).all()
    ):
        raise ValueError(f"targets must be integers in 0..{classes - 1}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # false for NaN, too
        raise ValueError("a probability is not a number in 0..1")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError("the probabilities of an image do not sum to 1")
