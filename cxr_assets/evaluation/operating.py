"""Abnormal against normal images, and when uncertain images go to a human reader."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from cxr_serving.model.metrics import Abnormal, OperatingPoint

# The class that every other one is abnormal against, where there is one of this name.
NORMAL = "normal"
# Sensitivities at which the specificity is reported.
_SENSITIVITIES = (0.9, 0.95, 0.99)
# With fewer images of a class, its F1 is left out.
_LEAST = 10
_COVERAGES = tuple(np.linspace(1, 0.2, 17).round(2).tolist())


def abnormal_roc(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
) -> pd.DataFrame:
    """ROC curve of all other classes against normal.

    Args:
        probabilities: [N, C].
        targets: [N], class indices, of normal images and of others.
        classes: C names, one of them normal.

    Returns:
        One row per distinct probability of an abnormality, 1 minus that of normal, none left out:
        ``threshold`` (an image is called abnormal from it on), ``sensitivity``, ``specificity``;
        the first row, at infinity, calls no image abnormal.
    """
    normal = classes.index(NORMAL)
    positive = targets != normal
    # By default collinear points of the curve are dropped, and with them the thresholds at which
    # a sensitivity is first reached.
    false_positive, sensitivity, threshold = roc_curve(
        positive, _abnormal(probabilities, normal), drop_intermediate=False
    )
    return pd.DataFrame(
        {"threshold": threshold, "sensitivity": sensitivity, "specificity": 1 - false_positive}
    )


def abnormal(
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
) -> Abnormal | None:
    """All other classes against normal; None without such a class, or with one kind of image.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.
        classes: C names.

    Returns:
        Its ``sensitivity`` and ``specificity`` are those of the top-1 class; ``at_sensitivity`` has
        for 0.9, 0.95 and 0.99 the highest threshold whose sensitivity is at least that, neither
        interpolated nor rounded, and the sensitivity and specificity there. The thresholds are
        chosen on the evaluated images themselves.
    """
    if NORMAL not in classes:
        return None
    normal = classes.index(NORMAL)
    positive = targets != normal
    if positive.all() or not positive.any():
        return None
    called = probabilities.argmax(axis=1) != normal
    curve = abnormal_roc(probabilities, targets, classes)
    points = {
        f"{wanted:g}": OperatingPoint(
            # Rounded up it would miss the image that it was chosen by.
            threshold=float(point["threshold"]),
            sensitivity=round(float(point["sensitivity"]), 6),
            specificity=round(float(point["specificity"]), 6),
        )
        for wanted in _SENSITIVITIES
        for _, point in curve[curve["sensitivity"] >= wanted].head(1).iterrows()
    }
    return Abnormal(
        auroc=round(float(roc_auc_score(positive, _abnormal(probabilities, normal))), 6),
        sensitivity=round(float(called[positive].mean()), 6),
        specificity=round(float(1 - called[~positive].mean()), 6),
        at_sensitivity=points,
    )


def _abnormal(probabilities: npt.NDArray[np.floating[Any]], normal: int) -> npt.NDArray[np.float64]:
    """float64 [N]: in single precision near-certain images would tie."""
    score: npt.NDArray[np.float64] = 1 - probabilities[:, normal].astype(np.float64)
    return score


def selective(
    probabilities: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.integer[Any]]
) -> pd.DataFrame:
    """Metrics on the images that are left when the least certain ones go to a human reader.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.

    Returns:
        One row per coverage, from all images to a fifth of them (El-Yaniv & Wiener 2010):
        ``coverage``, the smallest share to keep; ``images``, the number kept, including all that
        tie with the least certain of them; ``confidence``, the lowest that is accepted;
        ``accuracy``; ``macro_f1``, unweighted over the classes of the images, 0 for a class that
        is never predicted, NaN where a class has fewer than ten images left.
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
