"""What the predictions on a set of labelled images are worth."""

from collections.abc import Callable, Sequence
from typing import Any, SupportsFloat

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torchmetrics.functional import classification

SCORES = ("precision", "recall", "f1-score")


def evaluate(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Compute the metrics of a classifier, all by torchmetrics.

    A class without images has no precision, recall, F1 or AUROC: those are None, it is named under
    ``absent_classes``, and the averages run over the classes that are present. Precision and F1 of
    a present class that is never predicted are 0, as in scikit-learn.

    Args:
        probabilities: [N, C], each in 0..1, rows summing to 1.
        targets: [N], class indices in 0..C-1.
        classes: C names in index order.

    Returns:
        A dictionary ready for JSON, every score in 0..1 or None:
        ``classification_report`` in the shape of scikit-learn's ``classification_report(...,
        output_dict=True)``; ``confusion_matrix``, rows the truth and columns the prediction, and
        ``confusion_shares``, of each row; ``classes``; ``absent_classes``; ``auroc_ovr`` and
        ``average_precision_ovr`` by class, one versus the rest, and ``auroc_macro_ovr`` and
        ``average_precision_macro_ovr``, the means of those that exist; ``accuracy``; ``macro_f1``;
        ``images``, N.

    Raises:
        ValueError: the arrays do not fit one another, or hold what is no probability or class.
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
    columns = dict(zip(SCORES, (precision, recall, f1), strict=True))
    report: dict[str, Any] = {
        name: {
            **{key: _number(columns[key][index]) if support[index] else None for key in SCORES},
            "support": support[index],
        }
        for index, name in enumerate(classes)
    }
    macro = {key: _number(np.mean([columns[key][i] for i in present])) for key in SCORES}
    weighted = {key: _number(np.average(columns[key], weights=support)) for key in SCORES}
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
    return {
        "classification_report": {
            **report,
            "accuracy": accuracy,
            "macro avg": {**macro, "support": len(truth)},
            "weighted avg": {**weighted, "support": len(truth)},
        },
        "confusion_matrix": confusion.tolist(),
        "confusion_shares": [
            [_number(cell / images) if images else None for cell in row]
            for row, images in zip(confusion.tolist(), support, strict=True)
        ],
        "classes": list(classes),
        "absent_classes": [
            name for name, images in zip(classes, support, strict=True) if not images
        ],
        **{
            f"{name}_macro_ovr": _number(np.mean(values)) if values else None
            for name, values in defined.items()
        },
        **{
            f"{name}_ovr": dict(zip(classes, values, strict=True)) for name, values in areas.items()
        },
        "accuracy": accuracy,
        "macro_f1": macro["f1-score"],
        "images": len(truth),
    }


def _number(value: SupportsFloat) -> float:
    """Six decimals: torchmetrics counts in single precision, which has no more to say."""
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
        A row a threshold: ``class``, ``threshold``, ``false_positive_rate``,
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
        raise ValueError(f"{probabilities.shape[1]} probabilities an image for {classes} classes")
    if (
        not np.issubdtype(targets.dtype, np.integer)
        or not ((targets >= 0) & (targets < classes)).all()
    ):
        raise ValueError(f"targets must be integers in 0..{classes - 1}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # false for NaN, too
        raise ValueError("a probability is not a number in 0..1")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError("the probabilities of an image do not sum to 1")
