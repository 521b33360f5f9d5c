"""Calibration of the probabilities, before and after temperature scaling."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from cxr_serving.model.metrics import CalibrationErrors

BINS = 15


def uncalibrated(
    probabilities: npt.NDArray[np.floating[Any]], temperature: float
) -> npt.NDArray[np.float64]:
    """The probabilities before the logits were divided by ``temperature``.

    Args:
        probabilities: [N, C], softmax of logits / temperature.
        temperature: above 0.

    Returns:
        float64 [N, C].
    """
    floor = np.finfo(np.float32).tiny
    scaled = temperature * np.log(np.maximum(probabilities.astype(np.float64), floor))
    result: npt.NDArray[np.float64] = softmax(scaled, axis=1)
    return result


def reliability(
    probabilities: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.integer[Any]]
) -> pd.DataFrame:
    """Confidence of the top-1 class against accuracy, in adaptive bins.

    Bins of equally many images (Nixon et al. 2019, arXiv 1904.01685), not of equal width; of images
    that tie in confidence the earlier ones are in the lower bin.

    Args:
        probabilities: [N, C].
        targets: [N], class indices.

    Returns:
        One row per bin, at most ``BINS``: ``confidence``, the mean of the largest probability;
        ``accuracy``; ``images``.
    """
    table = pd.DataFrame(
        {
            "confidence": probabilities.max(axis=1).astype(np.float64),
            "accuracy": (probabilities.argmax(axis=1) == targets).astype(np.float64),
        }
    ).sort_values("confidence", ignore_index=True, kind="stable")
    bins = table.index * min(BINS, len(table)) // len(table)
    grouped = table.groupby(bins)
    return grouped.mean().assign(images=grouped.size()).reset_index(drop=True)


def calibration(
    probabilities: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.integer[Any]]
) -> CalibrationErrors:
    """Calibration metrics, 0 being best in each.

    Args:
        probabilities: [N, C], rows summing to 1.
        targets: [N], class indices.

    Returns:
        ``ece``, the adaptive expected calibration error: the mean absolute gap between confidence
        and accuracy over :func:`reliability`'s bins, weighted by their images, in 0..1; ``brier``,
        the squared error summed over the classes and not halved, in 0..2 (Brier 1950); ``nll``, the
        mean negative log-likelihood in nats, a probability of 0 counting as 2.2e-16.
    """
    bins = reliability(probabilities, targets)
    gaps = (bins["confidence"] - bins["accuracy"]).abs()
    classes = range(probabilities.shape[1])
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    return CalibrationErrors(
        ece=round(float(np.average(gaps, weights=bins["images"])), 6),
        brier=round(
            float(brier_score_loss(targets, exact, labels=list(classes), scale_by_half=False)), 6
        ),
        nll=round(float(log_loss(targets, exact, labels=list(classes))), 6),
    )
