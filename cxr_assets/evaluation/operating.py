"""What the model does as a detector of pneumonia, and when it may leave a film to a reader."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

# Sensitivities at which the specificity is told.
_SENSITIVITIES = (0.9, 0.95, 0.99)
# Films of a class below which its F1 is left out.
_LEAST = 10
_COVERAGES = tuple(np.linspace(1, 0.2, 17).round(2).tolist())


def pneumonia_roc(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    normal: int,
) -> pd.DataFrame:
    """ROC curve of pneumonia, bacterial or viral, against normal.

    Args:
        probabilities: [N, C].
        targets: [N], class indices, of normal films and of others.
        normal: index of the class of normal films.

    Returns:
        A row a threshold on the probability of pneumonia, the sum over its classes: ``threshold``,
        ``sensitivity``, ``specificity``; the first row calls no film pneumonia.
    """
    ill = targets != normal
    false_positive, sensitivity, threshold = roc_curve(ill, 1 - probabilities[:, normal])
    return pd.DataFrame(
        {"threshold": threshold, "sensitivity": sensitivity, "specificity": 1 - false_positive}
    )


def pneumonia(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    normal: int,
) -> dict[str, Any] | None:
    """Normal against pneumonia; None where the films are all of one kind.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.
        normal: index of the class of normal films.

    Returns:
        ``auroc``; ``sensitivity`` and ``specificity`` of the answered class (a film is called
        pneumonia when its likeliest class is one); ``at_sensitivity``: threshold and specificity
        where the sensitivity first reaches 90, 95 and 99 %, chosen on these very films.
    """
    ill = targets != normal
    if ill.all() or not ill.any():
        return None
    called = probabilities.argmax(axis=1) != normal
    curve = pneumonia_roc(probabilities, targets, normal)
    points = {
        f"{wanted:g}": curve[curve["sensitivity"] >= wanted].iloc[0].round(6).to_dict()
        for wanted in _SENSITIVITIES
    }
    return {
        "auroc": round(float(roc_auc_score(ill, 1 - probabilities[:, normal])), 6),
        "sensitivity": round(float(called[ill].mean()), 6),
        "specificity": round(float(1 - called[~ill].mean()), 6),
        "at_sensitivity": points,
    }


def selective(
    probabilities: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.integer[Any]]
) -> pd.DataFrame:
    """Scores on the films that are left when the least certain ones go to a reader.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.

    Returns:
        A row a coverage, from all films to a fifth of them (El-Yaniv & Wiener 2010): ``coverage``;
        ``films``; ``confidence``, the least that is accepted; ``accuracy``; ``macro_f1``, NaN
        where a class has fewer than ten films left, which say nothing.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    present = set(targets.tolist())
    rows = []
    for coverage in _COVERAGES:
        left = order[: max(1, round(coverage * len(order)))]
        truth, predicted = targets[left], probabilities[left].argmax(axis=1)
        f1 = f1_score(truth, predicted, labels=sorted(present), average="macro", zero_division=0)
        enough = all((truth == label).sum() >= _LEAST for label in present)
        rows.append(
            {
                "coverage": coverage,
                "films": len(left),
                "confidence": round(float(confidence[left].min()), 6),
                "accuracy": round(float((truth == predicted).mean()), 6),
                "macro_f1": round(float(f1), 6) if enough or coverage == 1 else None,
            }
        )
    return pd.DataFrame(rows)
