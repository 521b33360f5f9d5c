"""The release folder: the evaluated bundle, a model card, the metrics and the figures."""

import os
import shutil
from pathlib import Path
from typing import Any

from cxr_assets.atomic import swap_directory
from cxr_assets.evaluation import figures
from cxr_assets.evaluation.report import METRICS_FILE, latest_report, read_metrics
from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DatasetRecord, samples
from cxr_assets.release.card import CARD_FILE, SAMPLES_FILE, model_card
from cxr_serving import bundle
from cxr_serving.bundle import RECORD_FILE, BundleRecord


class ReleaseError(Exception):
    """Bundle, report, dataset and experiment do not belong together; the message says which."""


def write_release(layout: Layout, repo: str | None, experiment: Experiment) -> Path:
    """Write ``<releases>/<version>/`` from the newest report and the bundle it evaluated.

    A release is itself a bundle: its ``bundle.json`` is the evaluated one's and names the further
    files, too, so that :func:`cxr_serving.bundle.verify`, the predictor and ``from_pretrained`` all
    take it. It is written aside, verified and moved into place whole; the same inputs give the same
    bytes. Sample films are part of it only when they are phantoms.

    Args:
        layout: where dataset, bundles and reports lie and the release goes.
        repo: Hub repository that the card names, if any.
        experiment: the settings that the bundle was trained with; the card tells how to repeat it.

    Returns:
        The release's directory, which ``<releases>/latest.json`` then names.

    Raises:
        ReportError: there is no report yet.
        BundleError: the bundle is gone or broken.
        ReleaseError: the dataset or the experiment is not the one of the report.
    """
    report = latest_report(layout)
    metrics = read_metrics(report)
    source = layout.models(metrics["model"]["asset"]) / metrics["model"]["version"]
    record = bundle.verify(source)
    data = DatasetRecord.read(layout.processed)
    _check(record, metrics, data, experiment)
    pictures = sorted(
        (path.name for path in report.glob("*.png")),
        key=lambda name: (name.startswith("baseline_"), name),
    )

    def write(directory: Path) -> None:
        for name in record.files:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, directory / name)
        for name in (METRICS_FILE, *pictures):
            shutil.copyfile(report / name, directory / name)
        if data.synthetic:
            (directory / SAMPLES_FILE).write_bytes(
                figures.film_grid(
                    samples(layout.processed, "test", 1), "one film a class", synthetic=True
                )
            )
        card = model_card(record, metrics, data, experiment, pictures, repo)
        card.save(directory / CARD_FILE)

    layout.releases.mkdir(parents=True, exist_ok=True)
    for leftover in layout.releases.glob(f".{record.version}.*"):
        shutil.rmtree(leftover)
    staging = layout.releases / f".{record.version}.{os.getpid()}.partial"
    final = layout.releases / record.version
    try:
        made = bundle.publish(staging, record, write)
        if not record.files.items() <= BundleRecord.read(made).files.items():
            raise ReleaseError(f"{source} changed while it was copied: {RECORD_FILE} tells another")
        swap_directory(made, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    bundle.write_pointer(layout.releases, record.version)
    return final


def _check(
    record: BundleRecord, metrics: dict[str, Any], data: DatasetRecord, experiment: Experiment
) -> None:
    reported = metrics["model"]
    if reported["fingerprint"] != record.fingerprint:
        raise ReleaseError(
            f"the report {metrics['version']} is not about the bundle of that version: "
            "materialise metrics_report again"
        )
    if data.data_version != record.data_version:
        raise ReleaseError(
            f"the processed dataset is of version {data.data_version[:8]}, {record.asset} "
            f"{record.version} was trained on {record.data_version[:8]}: "
            f"materialise {record.asset} and metrics_report again"
        )
    for name, ours, theirs in (
        ("seed", experiment.seed, record.seed),
        ("data.image_size", experiment.data.image_size, record.input_size),
        ("phantoms", experiment.data.source == "phantom", record.synthetic),
        ("base weights", experiment.model.pretrained is not None, record.pretrained is not None),
    ):
        if ours != theirs:
            raise ReleaseError(
                f"{record.asset} {record.version} was not trained with the experiment in force "
                f"({name}: {theirs}, not {ours}), and the card would tell a wrong way to repeat "
                "it: set CXR_EXPERIMENT and CXR_OVERRIDES as they were, or materialise the models "
                "and metrics_report again"
            )
