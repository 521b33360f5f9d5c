"""Plots of the report and of the asset metadata, as PNG bytes.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which stay distinct in every
common kind of colour blindness; lines also differ in dash. Plots of synthetic images say so in
their title.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from cxr_assets.evaluation.wording import words
from cxr_serving.model.metrics import Abnormal, Calibration, Scores
from cxr_serving.model.report import TrendPoint

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")


def confusion_matrix(metrics: Scores, title: str, synthetic: bool) -> bytes:
    """Draw the confusion matrix: images as numbers, their share of the true class as shade.

    Args:
        metrics: what :func:`cxr_assets.evaluation.metrics.evaluate` returns.
        title: what was evaluated.
        synthetic: whether the images are synthetic.
    """
    counts = np.array(metrics.confusion_matrix)
    truth = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, truth, out=np.zeros(counts.shape), where=truth > 0)
    labels = [words(name) for name in metrics.classes]
    side = max(5.4, 1 + 0.9 * len(labels))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), images in np.ndenumerate(counts):
        axes.text(
            column,
            row,
            f"{images}\n{shares[row, column]:.0%}" if truth[row, 0] else "no image",
            ha="center",
            va="center",
            color="white" if shares[row, column] > 0.5 else "black",
        )
    axes.set_xticks(range(len(labels)), [label.replace(" ", "\n") for label in labels])
    axes.set_yticks(range(len(labels)), [label.replace(" ", "\n") for label in labels])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return _png(figure, f"{title}: confusion matrix, {metrics.images} images", synthetic)


def roc_curves(curves: pd.DataFrame, metrics: Scores, title: str, synthetic: bool) -> bytes:
    """Draw one ROC curve per class, one versus rest.

    Args:
        curves: what :func:`cxr_assets.evaluation.metrics.roc` returns.
        metrics: what :func:`cxr_assets.evaluation.metrics.evaluate` returns for the same images.
        title: what was evaluated.
        synthetic: whether the images are synthetic.
    """
    figure, axes = _square_axes()
    for index, name in enumerate(metrics.classes):
        area = metrics.auroc_ovr[name]
        if area is None:
            axes.plot([], [], " ", label=f"{words(name)}: not defined on these images")
            continue
        curve = curves[curves["class"] == name]
        axes.plot(
            curve["false_positive_rate"],
            curve["true_positive_rate"],
            **_style(index),
            linewidth=2,
            label=f"{words(name)}: AUROC {area:.3f}",
        )
    axes.set_xlabel("false positive rate (1 - specificity)")
    axes.set_ylabel("true positive rate (sensitivity)")
    axes.legend(loc="lower right", title="each class versus the rest")
    return _png(figure, f"{title}: ROC curves, {metrics.images} images", synthetic)


def abnormal_roc(curve: pd.DataFrame, summary: Abnormal, title: str, synthetic: bool) -> bytes:
    """Draw the ROC curve of all other classes against normal, and the operating point of the model.

    Args:
        curve: what :func:`cxr_assets.evaluation.operating.abnormal_roc` returns.
        summary: what :func:`cxr_assets.evaluation.operating.abnormal` returns.
        title: what was evaluated.
        synthetic: whether the images are synthetic.
    """
    figure, axes = _square_axes()
    axes.plot(
        1 - curve["specificity"],
        curve["sensitivity"],
        **_style(0),
        linewidth=2,
        label=f"AUROC {summary.auroc:.3f}",
    )
    axes.plot(
        1 - summary.specificity,
        summary.sensitivity,
        "o",
        color=COLOURS[1],
        markersize=9,
        label="top-1 class",
    )
    axes.set_xlabel("normal images called abnormal (1 - specificity)")
    axes.set_ylabel("abnormal images called abnormal (sensitivity)")
    axes.legend(loc="lower right")
    return _png(figure, f"{title}: abnormal against normal", synthetic)


def reliability(
    before: pd.DataFrame,
    after: pd.DataFrame,
    calibration: Calibration,
    title: str,
    synthetic: bool,
) -> bytes:
    """Draw confidence against accuracy, before and after temperature scaling.

    Args:
        before, after: what :func:`cxr_assets.evaluation.reliability.reliability` returns.
        calibration: of the same probabilities.
        title: what was evaluated.
        synthetic: whether the images are synthetic.
    """
    figure, axes = _square_axes()
    curves = (
        ("before", before, calibration.before.ece),
        ("after", after, calibration.after.ece),
    )
    for index, (name, bins, ece) in enumerate(curves):
        axes.plot(
            bins["confidence"],
            bins["accuracy"],
            **_style(index),
            marker="os"[index],
            label=f"{name}: ECE {ece:.3f}",
        )
    axes.set_xlabel("confidence (probability of the top-1 class)")
    axes.set_ylabel("accuracy")
    axes.legend(loc="upper left", title=f"temperature {calibration.temperature:.2f}")
    return _png(figure, f"{title}: reliability, bins of equally many images", synthetic)


def selective(curve: pd.DataFrame, title: str, synthetic: bool) -> bytes:
    """Draw the metrics on the remaining images when the least certain ones are set aside.

    Args:
        curve: what :func:`cxr_assets.evaluation.operating.selective` returns.
        title: what was evaluated.
        synthetic: whether the images are synthetic.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(("macro_f1", "accuracy")):
        axes.plot(
            curve["coverage"],
            curve[name].astype(float),
            **_style(index),
            marker="os"[index],
            label=words(name),
        )
    axes.set(xlim=(1.02, 0.18), ylim=(0, 1.02))
    axes.grid(color="0.9")
    axes.set_xlabel("coverage (share of images that the model answers)")
    axes.set_ylabel("metric on these images")
    axes.legend(loc="lower right")
    return _png(figure, f"{title}: the least certain images set aside", synthetic)


def trend(points: Sequence[TrendPoint], title: str, synthetic: bool) -> bytes:
    """Draw macro F1 of successive trainings.

    Args:
        points: oldest first.
        title: which model.
        synthetic: whether the images are synthetic.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    rows = pd.DataFrame([point.model_dump() for point in points])
    for index, name in enumerate(("validation_macro_f1", "test_macro_f1")):
        scores = rows[name].astype(float)
        axes.plot(range(len(rows)), scores, **_style(index), marker="os"[index], label=words(name))
    released = np.flatnonzero(rows["released"])
    axes.plot(
        released,
        rows["validation_macro_f1"].astype(float).iloc[released],
        "o",
        markersize=14,
        markerfacecolor="none",
        color="black",
        label="released",
    )
    dates = [str(version)[:8] for version in rows["version"]]
    axes.set_xticks(range(len(rows)), dates, rotation=45, ha="right")
    axes.set_ylim(0, 1.02)
    axes.grid(color="0.9")
    axes.set_xlabel("date of the training")
    axes.set_ylabel("macro F1")
    axes.legend(loc="lower right")
    return _png(figure, f"{title}: successive trainings", synthetic)


def learning_curves(curve: pd.DataFrame, title: str, synthetic: bool) -> bytes:
    """Draw losses and metrics over the epochs.

    Args:
        curve: one row per epoch, with ``epoch`` counted from 0. Of the columns named ``train_*``
            and ``val_*``, losses go to the upper panel and metrics in 0..1 to the lower one; the
            temperature is left out.
        title: what was trained.
        synthetic: whether the images are synthetic.
    """
    names = [str(name) for name in curve.columns if str(name).startswith(("train_", "val_"))]
    losses = [name for name in names if name.endswith("loss")]
    scores = [name for name in names if name not in losses and not name.endswith("temperature")]
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    panels = figure.subplots(2, sharex=True)
    for axes, columns in zip(panels, (losses, scores), strict=True):
        for index, name in enumerate(columns):
            axes.plot(
                curve["epoch"] + 1,
                curve[name],
                **_style(index),
                marker="o",
                markersize=3,
                label=words(name),
            )
        axes.grid(color="0.9")
        axes.legend()
    panels[0].set_ylabel("loss (cross entropy)")
    panels[1].set_ylabel("metric")
    panels[1].set_ylim(0, 1.02)
    panels[1].set_xlabel("epoch")
    panels[1].xaxis.get_major_locator().set_params(integer=True)
    return _png(figure, f"{title}: learning curves", synthetic)


def image_grid(
    images: Mapping[str, Sequence[npt.NDArray[np.uint8]]], title: str, synthetic: bool
) -> bytes:
    """Draw sample images, one column per class.

    Args:
        images: grey uint8 images [height, width] by class.
        title: where they come from.
        synthetic: whether they are synthetic.
    """
    rows = max(len(column) for column in images.values())
    figure = Figure(figsize=(2.1 * len(images) + 0.4, 2.1 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, len(images), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for column, (name, samples) in zip(grid.T, images.items(), strict=True):
        column[0].set_title(words(name), fontsize="medium")
        for axes, image in zip(column, samples, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    return _png(figure, title, synthetic)


def _square_axes() -> tuple[Figure, Any]:
    """Both axes are in 0..1; the diagonal is drawn."""
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(color="0.9")
    return figure, axes


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def _png(figure: Figure, title: str, synthetic: bool) -> bytes:
    figure.suptitle(
        f"{title}\nsynthetic images, not patients" if synthetic else title, fontsize="medium"
    )
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
