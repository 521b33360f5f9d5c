"""What the model does as a detector of pneumonia, and when it may leave an image to a reader."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

# Sensitivities at which the specificity is told.
_SENSITIVITIES = (0.9, 0.95, 0.99)
# Images of a class below which its F1 is left out.
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
        targets: [N], class indices, of normal images and of others.
        normal: index of the class of normal images.

    Returns:
        One row per distinct probability of pneumonia, 1 minus that of normal, none left out:
        ``threshold`` (an image is called pneumonia from it on), ``sensitivity``, ``specificity``;
        the first row, at infinity, calls no image pneumonia.
    """
    positive = targets != normal
    # By default points inside a straight stretch of the curve are dropped, and with them the
    # thresholds at which a sensitivity is first reached.
    false_positive, sensitivity, threshold = roc_curve(
        positive, _pneumonia(probabilities, normal), drop_intermediate=False
    )
    return pd.DataFrame(
        {"threshold": threshold, "sensitivity": sensitivity, "specificity": 1 - false_positive}
    )


def pneumonia(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    normal: int,
) -> dict[str, Any] | None:
    """Normal against pneumonia; None where the images are all of one kind.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.
        normal: index of the class of normal images.

    Returns:
        ``auroc``; ``sensitivity`` and ``specificity`` of the answered class (an image is called
        pneumonia when its top-1 class is one); ``at_sensitivity``: for 0.9, 0.95 and 0.99 the
        highest threshold whose sensitivity is at least that, not interpolated and not rounded, with
        the sensitivity and specificity there, chosen on these very images.
    """
    ill = targets != normal
    if ill.all() or not ill.any():
        return None
    called = probabilities.argmax(axis=1) != normal
    curve = pneumonia_roc(probabilities, targets, normal)
    points = {
        f"{wanted:g}": {
            # Rounded up it would miss the very image that it was chosen by.
            name: float(value) if name == "threshold" else round(float(value), 6)
            for name, value in curve[curve["sensitivity"] >= wanted].iloc[0].items()
        }
        for wanted in _SENSITIVITIES
    }
    return {
        "auroc": round(float(roc_auc_score(ill, _pneumonia(probabilities, normal))), 6),
        "sensitivity": round(float(called[ill].mean()), 6),
        "specificity": round(float(1 - called[~ill].mean()), 6),
        "at_sensitivity": points,
    }


def _pneumonia(
    probabilities: npt.NDArray[np.floating[Any]], normal: int
) -> npt.NDArray[np.float64]:
    """float64 [N]: in single precision near-certain images would tie."""
    score: npt.NDArray[np.float64] = 1 - probabilities[:, normal].astype(np.float64)
    return score


def selective(
    probabilities: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.integer[Any]]
) -> pd.DataFrame:
    """Scores on the images that are left when the least certain ones go to a reader.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.

    Returns:
        One row per coverage, from all images to a fifth of them (El-Yaniv & Wiener 2010):
        ``coverage``, the least share that is kept; ``images``, how many are, with all that tie with
        the least certain of them; ``confidence``, the least that is accepted; ``accuracy``;
        ``macro_f1``, unweighted over the classes that the images have, 0 for one never answered,
        NaN where a class has fewer than ten images left, which say nothing.
    """
    confidence = probabilities.max(axis=1)
    descending = np.sort(confidence)[::-1]
    present = set(targets.tolist())
    rows = []
    for coverage in _COVERAGES:
        left = confidence >= descending[max(1, round(coverage * len(descending))) - 1]
        truth, predicted = targets[left], probabilities[left].argmax(axis=1)
        f1 = f1_score(truth, predicted, labels=sorted(present), average="macro", zero_division=0)
        enough = all((truth == label).sum() >= _LEAST for label in present)
        rows.append(
            {
                "coverage": coverage,
                "images": int(left.sum()),
                "confidence": round(float(confidence[left].min()), 6),
                "accuracy": round(float((truth == predicted).mean()), 6),
                "macro_f1": round(float(f1), 6) if enough or coverage == 1 else None,
            }
        )
    return pd.DataFrame(rows)
