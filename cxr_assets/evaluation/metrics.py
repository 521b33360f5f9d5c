"""What the predictions on a set of labelled films are worth."""

from collections.abc import Sequence
from typing import Any, SupportsFloat

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional import classification

SCORES = ("precision", "recall", "f1-score")


def evaluate(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Compute the metrics of a classifier, all by torchmetrics.

    A class without films has no precision, recall, F1 or AUROC: those are None, it is named under
    ``absent_classes``, and the averages run over the classes that are present. Precision and F1 of
    a present class that is never predicted are 0, as in scikit-learn.

    Args:
        probabilities: [N, C], each in 0..1, rows summing to 1.
        targets: [N], class indices in 0..C-1.
        classes: C names in index order.

    Returns:
        A dictionary ready for JSON, every score in 0..1 or None:
        ``classification_report`` in the shape of scikit-learn's ``classification_report(...,
        output_dict=True)``; ``confusion_matrix``, rows the truth and columns the prediction;
        ``classes``; ``absent_classes``; ``auroc_ovr`` by class, one versus the rest, and
        ``auroc_macro_ovr``, the mean of those that exist; ``accuracy``; ``macro_f1``; ``films``, N.

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

    present = [index for index, films in enumerate(support) if films]
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
    auroc = [_auroc(scores[:, index], truth == index) for index in range(len(classes))]
    defined = [area for area in auroc if area is not None]
    return {
        "classification_report": {
            **report,
            "accuracy": accuracy,
            "macro avg": {**macro, "support": len(truth)},
            "weighted avg": {**weighted, "support": len(truth)},
        },
        "confusion_matrix": confusion.tolist(),
        "classes": list(classes),
        "absent_classes": [name for name, films in zip(classes, support, strict=True) if not films],
        "auroc_macro_ovr": _number(np.mean(defined)) if defined else None,
        "auroc_ovr": {
            name: None if area is None else _number(area)
            for name, area in zip(classes, auroc, strict=True)
        },
        "accuracy": accuracy,
        "macro_f1": macro["f1-score"],
        "films": len(truth),
    }


def _number(value: SupportsFloat) -> float:
    """Six decimals: torchmetrics counts in single precision, which has no more to say."""
    return round(float(value), 6)


def _auroc(scores: torch.Tensor, positive: torch.Tensor) -> float | None:
    """Area under the ROC curve of one class against the rest; None where either side is empty."""
    if positive.all() or not positive.any():
        return None
    return float(classification.binary_auroc(scores, positive.long()))


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
        raise ValueError("there is no film to evaluate")
    if probabilities.shape[1] != classes:
        raise ValueError(f"{probabilities.shape[1]} probabilities a film for {classes} classes")
    if (
        not np.issubdtype(targets.dtype, np.integer)
        or not ((targets >= 0) & (targets < classes)).all()
    ):
        raise ValueError(f"targets must be integers in 0..{classes - 1}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # false for NaN, too
        raise ValueError("a probability is not a number in 0..1")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError("the probabilities of a film do not sum to 1")
