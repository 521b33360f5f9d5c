"""The plots of a report, each with the numbers it shows."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_assets.evaluation import operating, plots, reliability
from cxr_assets.evaluation.metrics import roc
from cxr_assets.evaluation.scoring import Evaluated

# A PNG image, and its numbers.
Plot = tuple[bytes, pd.DataFrame]


def draw(
    main: Evaluated,
    baseline: Evaluated | None,
    targets: npt.NDArray[np.integer[Any]],
    synthetic: bool,
) -> dict[str, Plot]:
    """Draw the plots of both models.

    Args:
        main: the main model.
        baseline: the model it is compared with, if any.
        targets: [N], class indices.
        synthetic: whether the titles say that the images are synthetic.

    Returns:
        Plots by name; those of the baseline start with ``baseline_``.
    """
    drawn = _of_model(main, targets, synthetic)
    if baseline is not None:
        for name, plot in _of_model(baseline, targets, synthetic).items():
            drawn[f"baseline_{name}"] = plot
    return drawn


def _of_model(
    model: Evaluated, targets: npt.NDArray[np.integer[Any]], synthetic: bool
) -> dict[str, Plot]:
    title, metrics, classes = model.record.asset, model.metrics, model.record.classes
    matrix = pd.DataFrame(metrics.confusion_matrix, columns=list(classes))
    matrix.insert(0, "true class", list(classes))
    curves = roc(model.probabilities, targets, classes)
    before, after = (
        reliability.reliability(probabilities, targets)
        for probabilities in (model.uncalibrated, model.probabilities)
    )
    coverage = pd.DataFrame([point.model_dump() for point in metrics.selective])
    drawn = {
        "confusion_matrix": (plots.confusion_matrix(metrics, title, synthetic), matrix),
        "roc_curves": (plots.roc_curves(curves, metrics, title, synthetic), curves),
        "reliability": (
            plots.reliability(before, after, metrics.calibration, title, synthetic),
            pd.concat([before.assign(temperature="before"), after.assign(temperature="after")]),
        ),
        "selective": (plots.selective(coverage, title, synthetic), coverage),
    }
    if metrics.abnormal is not None:
        curve = operating.abnormal_roc(model.probabilities, targets, classes)
        drawn["abnormal_roc"] = (
            plots.abnormal_roc(curve, metrics.abnormal, title, synthetic),
            curve,
        )
    if model.history is not None:
        drawn["learning_curves"] = (
            plots.learning_curves(model.history, title, synthetic),
            model.history,
        )
    return drawn
