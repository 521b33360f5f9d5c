"""Two models on the same images."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from cxr_assets.evaluation import bootstrap

COMPARED = ("macro_f1", "accuracy", "auroc_macro_ovr")


def compare(
    ours: dict[str, Any], theirs: dict[str, Any], our_draws: pd.DataFrame, their_draws: pd.DataFrame
) -> dict[str, Any]:
    """Paired bootstrap of the differences, ours minus theirs.

    Args:
        ours, theirs: what :func:`cxr_assets.evaluation.metrics.evaluate` returns for them.
        our_draws, their_draws: what :func:`cxr_assets.evaluation.bootstrap.scores` returns for the
            same draws of them.

    Returns:
        For each of ``COMPARED`` what :func:`cxr_assets.evaluation.bootstrap.difference` returns;
        None where a figure is not defined.
    """
    return {
        name: None
        if ours[name] is None or theirs[name] is None
        else bootstrap.difference(our_draws[name] - their_draws[name], ours[name] - theirs[name])
        for name in COMPARED
    }


def clearly_beats(metrics: dict[str, Any], margin: float) -> bool:
    """Whether the model exceeds its baseline in macro F1 by ``margin``, chance allowed for.

    Args:
        metrics: contents of the report's ``metrics.json``.
        margin: what the lower end of the 95 % interval must reach.
    """
    low: float = metrics["comparison"]["macro_f1"]["interval"][0]
    return low >= margin


def mcnemar(
    ours: npt.NDArray[np.floating[Any]],
    theirs: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
) -> dict[str, Any]:
    """Exact McNemar test (1947, doi:10.1007/BF02295996): whose errors are more, on the same images.

    Images of one patient count as independent here, which makes p somewhat too small.

    Args:
        ours, theirs: probabilities [N, C] of the two models.
        targets: [N], class indices.

    Returns:
        ``only_ours``, ``only_theirs``: images that one model alone classifies right; ``p``, exact
        binomial and two-sided, without a mid-p or continuity correction.
    """
    right, their_right = (part.argmax(axis=1) == targets for part in (ours, theirs))
    only_ours, only_theirs = int((right & ~their_right).sum()), int((their_right & ~right).sum())
    differing = only_ours + only_theirs
    p = binomtest(only_ours, differing, 0.5, alternative="two-sided").pvalue if differing else 1.0
    return {"only_ours": only_ours, "only_theirs": only_theirs, "p": float(p)}
