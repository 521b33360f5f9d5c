"""The report: both models on the test split, through the predictor that serves."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_assets.atomic import swap_directory, write_file
from cxr_assets.evaluation import figures
from cxr_assets.evaluation.metrics import evaluate
from cxr_assets.layout import Layout
from cxr_assets.radiographs import dataset
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_serving import bundle
from cxr_serving.bundle import HISTORY_FILE, BundleRecord
from cxr_serving.predictor import Predictor
from cxr_serving.preprocessing import FilmError

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
DISCLAIMER = "For research and education only. Not a medical device."

_BATCH = 64


class ReportError(Exception):
    """The report cannot be made or read; the message says what does not fit and what to do."""


@dataclass(frozen=True)
class _Evaluated:
    record: BundleRecord
    history: pd.DataFrame | None
    probabilities: npt.NDArray[np.float32]
    metrics: dict[str, Any]


def write_report(
    layout: Layout, main: Path, baseline: Path, progress: Callable[[str], None] = lambda line: None
) -> Path:
    """Evaluate two bundles on the test split of the processed dataset and write the report.

    ``<reports>/<version>/``, the version being the main bundle's, holds ``metrics.json``,
    ``predictions.csv`` and the figures. It is written aside and moved into place whole, where it
    replaces an earlier report on the same main bundle; then ``<reports>/metrics.json`` and
    ``<reports>/latest.json`` follow.

    Args:
        layout: where the dataset lies and the report goes.
        main: directory of the bundle that is to be released.
        baseline: directory of the bundle it is compared with.
        progress: called with a line now and then.

    Returns:
        The report's directory.

    Raises:
        DatasetError: there is no processed dataset.
        BundleError: a bundle is broken.
        ReportError: the bundles and the dataset do not belong together.
    """
    data = DatasetRecord.read(layout.processed)
    films = _test_films(layout.processed, data)
    models = {
        "model": _evaluate(main, layout.processed, data, films, progress),
        "baseline": _evaluate(baseline, layout.processed, data, films, progress),
    }
    record = models["model"].record
    if models["baseline"].record.classes != record.classes:
        raise ReportError(f"{main} and {baseline} do not have the same classes: train both again")
    final = layout.reports / record.version
    layout.reports.mkdir(parents=True, exist_ok=True)
    for leftover in layout.reports.glob(f".{record.version}.*"):
        shutil.rmtree(leftover)
    partial = layout.reports / f".{record.version}.{os.getpid()}.partial"
    try:
        partial.mkdir()
        metrics = _metrics(models, data)
        content = (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode()
        (partial / METRICS_FILE).write_bytes(content)
        _predictions(films, models).to_csv(partial / PREDICTIONS_FILE, index=False)
        for name, picture in _figures(films, models, metrics["synthetic"]).items():
            (partial / name).write_bytes(picture)
        swap_directory(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    write_file(layout.reports / METRICS_FILE, content)
    bundle.write_pointer(layout.reports, record.version)
    return final


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
    """The contents of ``metrics.json`` in a report's directory."""
    metrics: dict[str, Any] = json.loads((report / METRICS_FILE).read_bytes())
    return metrics


def _test_films(directory: Path, data: DatasetRecord) -> pd.DataFrame:
    """The kept films of the test split: columns ``file`` and ``class``, ordered by file name."""
    films = dataset.kept(directory, "test")[["file", "class"]]
    expected = sum(data.counts["test"].values())
    if len(films) == 0 or len(films) != expected:
        raise ReportError(
            f"{directory / dataset.MANIFEST_FILE} lists {len(films)} test films, "
            f"{dataset.DATASET_FILE} counts {expected}: materialise processed_dataset again"
        )
    return films


def _evaluate(
    directory: Path,
    processed: Path,
    data: DatasetRecord,
    films: pd.DataFrame,
    progress: Callable[[str], None],
) -> _Evaluated:
    predictor = Predictor(directory)
    record = predictor.record
    if record.data_version != data.data_version:
        raise ReportError(
            f"{directory} was trained on data version {record.data_version[:8]}, the test films in "
            f"{processed} are of version {data.data_version[:8]}, and may be among those it was "
            f"trained on: materialise {record.asset} again"
        )
    batches = []
    for start in range(0, len(films), _BATCH):
        files = films["file"][start : start + _BATCH]
        batch = np.stack([_decode(predictor, processed / file) for file in files])
        batches.append(predictor.predict(batch))
    probabilities = np.concatenate(batches)
    metrics = evaluate(probabilities, _targets(films, record.classes), record.classes)
    progress(
        f"{record.asset} {record.version}: macro F1 {metrics['macro_f1']:.3f} "
        f"and accuracy {metrics['accuracy']:.3f} on {metrics['films']} test films"
    )
    history = directory / HISTORY_FILE
    return _Evaluated(
        record,
        pd.read_csv(history) if history.exists() else None,
        probabilities,
        metrics,
    )


def _decode(predictor: Predictor, path: Path) -> npt.NDArray[np.uint8]:
    try:
        return predictor.preprocessing.decode(path)
    except (OSError, FilmError) as error:
        raise ReportError(
            f"{path} cannot be read ({error}): materialise processed_dataset again"
        ) from error


def _targets(films: pd.DataFrame, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    return np.array([classes.index(label) for label in films["class"]], dtype=np.int64)


def _metrics(models: dict[str, _Evaluated], data: DatasetRecord) -> dict[str, Any]:
    main, baseline = models["model"], models["baseline"]
    return {
        "version": main.record.version,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "disclaimer": DISCLAIMER,
        "synthetic": data.synthetic,
        "data_version": data.data_version,
        "margin": round(main.metrics["macro_f1"] - baseline.metrics["macro_f1"], 6),
        "model": _provenance(main.record),
        **main.metrics,
        "baseline": {"model": _provenance(baseline.record), **baseline.metrics},
    }


def _provenance(record: BundleRecord) -> dict[str, Any]:
    return record.model_dump(
        mode="json", exclude={"format_version", "classes", "validation", "files"}
    )


def _predictions(films: pd.DataFrame, models: dict[str, _Evaluated]) -> pd.DataFrame:
    table = films.rename(columns={"file": "path", "class": "target"})
    for role, model in models.items():
        for index, name in enumerate(model.record.classes):
            table[f"{role}_{name}"] = model.probabilities[:, index]
    return table


def _figures(
    films: pd.DataFrame, models: dict[str, _Evaluated], synthetic: bool
) -> dict[str, bytes]:
    pictures = {}
    for role, model in models.items():
        title = model.record.asset
        targets = _targets(films, model.record.classes)
        prefix = "" if role == "model" else f"{role}_"
        pictures[f"{prefix}confusion_matrix.png"] = figures.confusion_matrix(
            model.metrics, title, synthetic
        )
        pictures[f"{prefix}roc_curves.png"] = figures.roc_curves(
            model.probabilities, targets, model.metrics, title, synthetic
        )
        if model.history is not None:
            pictures[f"{prefix}learning_curves.png"] = figures.learning_curves(
                model.history, title, synthetic
            )
    return pictures
