"""Images that need a second look: their label is in doubt, or they are unlike all others."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler, normalize

FOLDS = 5
# As Datalab, the part of cleanlab that needs the package `datasets`: in interquartile ranges.
_FENCE = 1.7
_NEIGHBOURS = 10
# Among which neighbours are searched: time is in proportion to the images.
_SAMPLE = 20_000

Numbers = npt.NDArray[np.float64]


def out_of_fold(
    embeddings: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.int64], patients: pd.Series
) -> Numbers:
    """Probabilities from a linear model that has not seen the patient.

    Linear discriminant analysis, whose covariance is shrunk as Ledoit and Wolf (2004) propose, in
    five folds that keep a patient together. It needs no setting and no iterations, and finds as
    many planted errors as the best of logistic regressions.

    Args:
        embeddings: [N, hidden].
        targets: [N], class indices 0..C-1; each class has at least five patients.
        patients: of the N images.

    Returns:
        [N, C].
    """
    probabilities: Numbers = cross_val_predict(
        make_pipeline(
            # One fold at a time is in double precision.
            FunctionTransformer(np.float64),
            StandardScaler(copy=False),
            LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        ),
        embeddings,
        targets,
        groups=patients,
        cv=StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0),
        method="predict_proba",
    )
    return probabilities


def doubts(probabilities: Numbers, targets: npt.NDArray[np.int64]) -> Numbers:
    """How much a label is in doubt: 0..1, 1 less the probability of the label.

    (cleanlab's entropy weighted by confidence calls a label good that a very certain model
    contradicts.)

    Args:
        probabilities: [N, C], of a model that was not trained on the image.
        targets: [N], class indices.
    """
    quality: Numbers = get_label_quality_scores(targets, probabilities, method="self_confidence")
    return 1 - quality


def likely_errors(probabilities: Numbers, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which labels are likely to be wrong, by confident learning (arXiv 1911.00068).

    Args:
        probabilities, targets: as for :func:`doubts`.
    """
    found: npt.NDArray[np.bool_] = find_label_issues(
        targets, probabilities, filter_by="both", n_jobs=1
    )
    return found


def strangeness(embeddings: npt.NDArray[np.floating[Any]]) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """How far each image is from its nearest neighbours among the embeddings (arXiv 2207.03061).

    Of more than 20,000 images, so many that are drawn by chance are the neighbours of all.

    Args:
        embeddings: [N, hidden], N above ten.

    Returns:
        Scores [N] in 0..1, 1 being farthest, and which of them are outliers: their mean distance to
        ten neighbours exceeds the third quartile by 1.7 interquartile ranges.
    """
    unit = normalize(embeddings)
    drawn = np.random.default_rng(0).permutation(len(unit)) < _SAMPLE
    # The cosine distance is half the square of the Euclidean one, as these are unit vectors.
    search = NearestNeighbors(n_neighbors=_NEIGHBOURS, algorithm="brute").fit(unit[drawn])
    distances = np.empty((len(unit), _NEIGHBOURS))
    distances[drawn], _ = search.kneighbors()  # without the image itself
    if not drawn.all():
        distances[~drawn], _ = search.kneighbors(unit[~drawn])
    distance = np.square(distances).mean(axis=1) / 2
    distance /= max(np.median(distance), np.finfo(np.float64).eps)
    low, high = np.percentile(distance, [25, 75])
    return 1 - np.exp(-distance), distance > high + _FENCE * (high - low)
