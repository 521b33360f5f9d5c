"""The report: models on the test split or a folder of images, through the predictor that serves."""

import functools
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cxr_assets import written
from cxr_assets.evaluation import bootstrap, comparison, operating, page, past, plots, reliability
from cxr_assets.evaluation import images as evaluated
from cxr_assets.evaluation.images import Images, ReportError
from cxr_assets.evaluation.machine import environment
from cxr_assets.evaluation.metrics import evaluate, roc
from cxr_assets.evaluation.shortcuts import shortcuts
from cxr_assets.evaluation.subgroups import subgroups
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_assets.radiographs.naming import CLASSES
from cxr_serving.model import bundle
from cxr_serving.model.atomic import write_file
from cxr_serving.model.bundle import HISTORY_FILE, METRICS_FILE, BundleError, BundleRecord
from cxr_serving.model.predictor import Predictor

PAGE_FILE = "report.html"
PREDICTIONS_FILE = "predictions.csv"
# Kinds of reports: one on the test split, which a release follows from, and one on any folder.
REPORT = "report"
EVALUATION = "evaluation report"
DISCLAIMER = "For research and education only. Not a medical device."

_NORMAL = CLASSES.index("normal")
_HEADLINES = ("accuracy", "macro_f1", "auroc_macro_ovr", "average_precision_macro_ovr")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Evaluated:
    """A model and what it answers to the images."""

    predictor: Predictor
    history: pd.DataFrame | None
    probabilities: npt.NDArray[np.float32]
    metrics: dict[str, Any]
    draws: pd.DataFrame

    @property
    def record(self) -> BundleRecord:
        return self.predictor.record

    @property
    def uncalibrated(self) -> npt.NDArray[np.float64]:
        return reliability.uncalibrated(self.probabilities, self.record.temperature)


def write_report(
    layout: Layout, main: Path, baseline: Path, progress: Progress = lambda line: None
) -> Path:
    """Evaluate two bundles on the test split of the processed dataset and write the report.

    ``<reports>/<version>/``, the version being the main bundle's, holds ``metrics.json``,
    ``report.html``, ``predictions.csv``, and the figures with the numbers behind each. It is
    written aside and moved into place whole, where it replaces an earlier report on the same main
    bundle; then ``<reports>/metrics.json``, ``report.html`` and ``latest.json`` follow.

    Args:
        layout: where the dataset lies and the report goes.
        main: directory of the bundle that is to be released.
        baseline: directory of the bundle it is compared with.
        progress: called with a line now and then.

    Returns:
        The report's directory.

    Raises:
        DatasetError: there is no processed dataset.
        BundleError: a bundle is broken; a broken release or an older bundle is only left out.
        ReportError: the bundles and the dataset do not belong together, or an image is unreadable.
    """
    images = evaluated.test_split(layout.processed)
    drawn = bootstrap.draws(images.table["patient"])
    models = {}
    for role, directory in (("model", main), ("baseline", baseline)):
        models[role] = _evaluate(_trained_on(directory, images), directory, images, drawn, progress)
    ours = models["model"]
    asset, version = ours.record.asset, ours.record.version
    regression, not_compared = None, None
    try:
        released = past.released(layout, asset, but=version)
        if released is not None:
            theirs = _evaluate(Predictor(released), released, images, drawn, lambda line: None)
            regression = {
                "released": theirs.record.version,
                "same_data": theirs.record.data_version == ours.record.data_version,
                **comparison.compare(ours.metrics, theirs.metrics, ours.draws, theirs.draws),
            }
    except (BundleError, ReportError) as error:
        # The next release replaces it; without this report there would be none.
        not_compared = "the last release is broken"
        progress(f"not compared with the last release, because it is broken: {error}")
    trend = past.trend(layout, asset, progress)
    for row in trend:
        if row["version"] == version:
            # As when it was new: that a report is made again changes nothing in it.
            row |= {"test_macro_f1": ours.metrics["macro_f1"], "released": False}
    further = {
        "regression": regression,
        "not_compared": not_compared,
        "trend": trend,
        "dataset": DatasetRecord.read(layout.processed).model_dump(mode="json"),
    }
    final = layout.reports / version
    content = _write(final, REPORT, layout.set_aside, images, drawn, models, further)
    write_file(layout.reports / METRICS_FILE, content)
    write_file(layout.reports / PAGE_FILE, (final / PAGE_FILE).read_bytes())
    bundle.write_pointer(layout.reports, version)
    return final


def report_on_folder(
    main: Path, folder: Path, out: Path, baseline: Path | None, progress: Progress
) -> Path:
    """Write the same report on any bundle and any folder of images in the raw layout.

    Args:
        main: directory of the bundle.
        folder: images; classes that it lacks are reported as absent.
        out: where the report goes; an earlier one by this function, unchanged, is replaced.
        baseline: directory of a bundle to compare with, if any.
        progress: called with a line now and then.

    Returns:
        ``out``.

    Raises:
        RawDataError: there is no image.
        BundleError: a bundle is broken.
        ReportError: ``out`` holds anything else, or lies in something that must stay as it is.
    """
    out = out.resolve()
    _require_free(out, folder.resolve())
    images = evaluated.folder(folder, progress)
    drawn = bootstrap.draws(images.table["patient"])
    roles = {"model": main} | ({"baseline": baseline} if baseline else {})
    models = {
        role: _evaluate(Predictor(directory), directory, images, drawn, progress)
        for role, directory in roles.items()
    }
    _write(
        out,
        EVALUATION,
        out.parent,
        images,
        drawn,
        models,
        {"regression": None, "not_compared": None, "trend": [], "dataset": None},
    )
    return out


def _require_free(out: Path, folder: Path) -> None:
    reason = written.foreign(out, EVALUATION) if out.exists() else None
    for above in out.parents:
        # Each is known by what it holds: a further file would make it another.
        sealed = (above / written.RECORD_FILE).exists() or bundle.foreign(above) is None
        if above == folder or sealed:
            reason = f"{out} lies in {above}, which must stay as it is"
    if reason is not None:
        raise ReportError(f"{reason}: name a new or an empty directory with --out")


def latest_report(layout: Layout) -> Path:
    """The directory of the newest report.

    Raises:
        ReportError: there is none yet, or it was deleted.
    """
    version = bundle.read_pointer(layout.reports)
    if version is None or not (layout.reports / version / METRICS_FILE).is_file():
        raise ReportError(f"no report in {layout.reports}: materialise metrics_report first")
    return layout.reports / version


def read_metrics(report: Path) -> dict[str, Any]:
    """The contents of ``metrics.json`` in a report's directory, or the newest in that of all.

    Raises:
        ReportError: it is missing or broken.
    """
    path = report / METRICS_FILE
    try:
        metrics: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ReportError(
            f"{path} cannot be read ({error}): materialise metrics_report again"
        ) from error
    return metrics


def _trained_on(directory: Path, images: Images) -> Predictor:
    predictor = Predictor(directory)
    record = predictor.record
    if record.data_version != images.data_version:
        raise ReportError(
            f"{directory} was trained on data version {record.data_version[:8]}, but the test "
            f"images in {images.root} are of version {(images.data_version or '')[:8]}, and may be "
            "among those "
            f"it was trained on: materialise {record.asset} again"
        )
    return predictor


def _evaluate(
    predictor: Predictor, directory: Path, images: Images, drawn: torch.Tensor, progress: Progress
) -> _Evaluated:
    record = predictor.record
    if record.classes != CLASSES:
        raise ReportError(f"{directory} has the classes {', '.join(record.classes)}: train it anew")
    probabilities = evaluated.predict(predictor, images.paths)
    targets = images.targets(CLASSES)
    metrics = evaluate(probabilities, targets, CLASSES)
    progress(
        f"{record.asset} {record.version}: macro F1 {metrics['macro_f1']:.3f} "
        f"and accuracy {metrics['accuracy']:.3f} on {metrics['images']} images"
    )
    history = directory / HISTORY_FILE
    return _Evaluated(
        predictor,
        pd.read_csv(history) if history.exists() else None,
        probabilities,
        metrics,
        bootstrap.scores(probabilities, targets, CLASSES, drawn),
    )


def _write(
    final: Path,
    kind: str,
    aside: Path,
    images: Images,
    drawn: torch.Tensor,
    models: dict[str, _Evaluated],
    further: dict[str, Any],
) -> bytes:
    """Write a report aside and move it to ``final``; returns the contents of metrics.json."""
    final.parent.mkdir(parents=True, exist_ok=True)
    foreign = functools.partial(written.foreign, kind=kind)
    written.remove_leftovers(final, foreign)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    try:
        written.begin(partial, kind)
        metrics = _metrics(images, drawn, models) | further
        with suppress(ReportError):  # there is none, or a broken one, which this one replaces
            before = read_metrics(final)
            # A report that says the same keeps its date, so that nobody takes it for a new one.
            if before == metrics | {"created_at": before.get("created_at")}:
                metrics = before
        content = (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode()
        (partial / METRICS_FILE).write_bytes(content)
        _predictions(images, models).to_csv(partial / PREDICTIONS_FILE, index=False)
        for name, (picture, numbers) in _figures(images, models, metrics).items():
            (partial / f"{name}.png").write_bytes(picture)
            numbers.to_csv(partial / f"{name}.csv", index=False)
        main = models["model"]
        html = page.render(metrics, partial, main.predictor, images, main.probabilities)
        (partial / PAGE_FILE).write_text(html)
        written.seal(partial, kind)
        written.replace(partial, final, foreign, aside)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return content


def _metrics(images: Images, drawn: torch.Tensor, models: dict[str, _Evaluated]) -> dict[str, Any]:
    main, baseline = models["model"], models.get("baseline")
    targets = images.targets(CLASSES)
    pixels = evaluated.batches(main.predictor, images.paths)
    identity = sha256()
    for image, label in sorted(zip(images.table["sha256"], images.table["class"], strict=True)):
        identity.update(f"{image} {label}\n".encode())
    metrics = {
        "version": main.record.version,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "disclaimer": DISCLAIMER,
        "synthetic": images.synthetic or main.record.synthetic,
        "images_from": images.source,
        "images_sha256": identity.hexdigest(),
        "patients": int(images.table["patient"].nunique()),
        "unknown_patients": images.unknown_patients,
        "skipped": images.skipped,
        "data_version": images.data_version,
        **_of_model(main, targets),
        "subgroups": subgroups(images, main.probabilities, CLASSES, drawn),
        "shortcuts": {
            name: audit | {"gain": round(main.metrics["macro_f1"] - audit["macro_f1"], 6)}
            if "macro_f1" in audit
            else audit
            for name, audit in shortcuts(images, pixels, CLASSES).items()
        },
        "environment": environment(),
        "baseline": None,
        "margin": None,
        "comparison": None,
    }
    if baseline is None:
        return metrics
    compared = comparison.compare(main.metrics, baseline.metrics, main.draws, baseline.draws)
    test = comparison.mcnemar(main.probabilities, baseline.probabilities, targets)
    return metrics | {
        "baseline": _of_model(baseline, targets),
        "margin": compared["macro_f1"]["estimate"],
        "comparison": compared | {"mcnemar": test},
    }


def _of_model(model: _Evaluated, targets: npt.NDArray[np.int64]) -> dict[str, Any]:
    history = model.history
    selective = operating.selective(model.probabilities, targets)
    return {
        "model": evaluated.provenance(model.record),
        "training_seconds": _sum(history, "seconds"),
        "training_joules": _sum(history, "joules"),
        **model.metrics,
        "intervals": {
            **{name: bootstrap.interval(model.draws[name]) for name in _HEADLINES},
            "classes": {
                label: {
                    name.removeprefix(f"{label}/"): bootstrap.interval(model.draws[name])
                    for name in model.draws.columns
                    if name.startswith(f"{label}/")
                }
                for label in CLASSES
            },
        },
        "calibration": {
            "temperature": model.record.temperature,
            "before": reliability.calibration(model.uncalibrated, targets),
            "after": reliability.calibration(model.probabilities, targets),
        },
        "pneumonia": operating.pneumonia(model.probabilities, targets, _NORMAL),
        "selective": json.loads(selective.to_json(orient="records")),
    }


def _sum(history: pd.DataFrame | None, column: str) -> float | None:
    """Over the epochs; None where one lacks it."""
    if history is None or column not in history or history[column].isna().any():
        return None
    return round(float(history[column].sum()), 1)


def _predictions(images: Images, models: dict[str, _Evaluated]) -> pd.DataFrame:
    table = images.table[["path", "class"]].rename(columns={"class": "target"})
    for role, model in models.items():
        for index, name in enumerate(CLASSES):
            table[f"{role}_{name}"] = model.probabilities[:, index]
    return table


def _figures(
    images: Images, models: dict[str, _Evaluated], metrics: dict[str, Any]
) -> dict[str, tuple[bytes, pd.DataFrame]]:
    """Each figure as a PNG, and the numbers it shows."""
    synthetic = metrics["synthetic"]
    targets = images.targets(CLASSES)
    pictures = {}
    for role, model in models.items():
        title = model.record.asset
        prefix = "" if role == "model" else f"{role}_"
        scores = metrics if role == "model" else metrics[role]
        matrix = pd.DataFrame(scores["confusion_matrix"], columns=list(CLASSES))
        matrix.insert(0, "true class", list(CLASSES))
        pictures[f"{prefix}confusion_matrix"] = (
            plots.confusion_matrix(scores, title, synthetic),
            matrix,
        )
        curves = roc(model.probabilities, targets, CLASSES)
        pictures[f"{prefix}roc_curves"] = (
            plots.roc_curves(curves, scores, title, synthetic),
            curves,
        )
        before, after = (
            reliability.reliability(probabilities, targets)
            for probabilities in (model.uncalibrated, model.probabilities)
        )
        pictures[f"{prefix}reliability"] = (
            plots.reliability(before, after, scores["calibration"], title, synthetic),
            pd.concat([before.assign(temperature="before"), after.assign(temperature="after")]),
        )
        if scores["pneumonia"] is not None:
            curve = operating.pneumonia_roc(model.probabilities, targets, _NORMAL)
            pictures[f"{prefix}pneumonia_roc"] = (
                plots.pneumonia_roc(curve, scores["pneumonia"], title, synthetic),
                curve,
            )
        coverage = pd.DataFrame(scores["selective"])
        pictures[f"{prefix}selective"] = (plots.selective(coverage, title, synthetic), coverage)
        if model.history is not None:
            pictures[f"{prefix}learning_curves"] = (
                plots.learning_curves(model.history, title, synthetic),
                model.history,
            )
    return pictures
