"""Two models on the same images."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from cxr_assets.evaluation import bootstrap
from cxr_serving.model.comparison import Difference, Differences, McNemar
from cxr_serving.model.metrics import Scores


def compare(
    ours: Scores, theirs: Scores, our_draws: pd.DataFrame, their_draws: pd.DataFrame
) -> Differences:
    """Paired bootstrap of the differences, ours minus theirs.

    Args:
        ours, theirs: what :func:`cxr_assets.evaluation.metrics.evaluate` returns for them.
        our_draws, their_draws: what :func:`cxr_assets.evaluation.bootstrap.scores` returns for the
            same draws of them.
    """

    def difference(name: str, our: float, their: float) -> Difference:
        return bootstrap.difference(our_draws[name] - their_draws[name], our - their)

    areas = ours.auroc_macro_ovr, theirs.auroc_macro_ovr
    return Differences(
        macro_f1=difference("macro_f1", ours.macro_f1, theirs.macro_f1),
        accuracy=difference("accuracy", ours.accuracy, theirs.accuracy),
        auroc_macro_ovr=None
        if areas[0] is None or areas[1] is None
        else difference("auroc_macro_ovr", areas[0], areas[1]),
    )


def mcnemar(
    ours: npt.NDArray[np.floating[Any]],
    theirs: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.integer[Any]],
) -> McNemar:
    """Exact McNemar test (1947, doi:10.1007/BF02295996) of the errors on the same images.

    Images of one patient count as independent here, which makes p slightly too small.

    Args:
        ours, theirs: probabilities [N, C] of the two models.
        targets: [N], class indices.

    Returns:
        Its ``p`` is exact binomial and two-sided, without a mid-p or continuity correction.
    """
    right, their_right = (part.argmax(axis=1) == targets for part in (ours, theirs))
    only_ours, only_theirs = int((right & ~their_right).sum()), int((their_right & ~right).sum())
    differing = only_ours + only_theirs
    p = binomtest(only_ours, differing, 0.5, alternative="two-sided").pvalue if differing else 1.0
    return McNemar(only_ours=only_ours, only_theirs=only_theirs, p=float(p))
