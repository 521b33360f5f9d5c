"""The release folder: the evaluated bundle, a model card, the metrics and the figures."""

import os
import shutil
from pathlib import Path
from typing import Any

from cxr_assets import written
from cxr_assets.evaluation import plots
from cxr_assets.evaluation.comparison import clearly_beats
from cxr_assets.evaluation.report import latest_report, read_metrics
from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.radiographs import leakage
from cxr_assets.radiographs.dataset import DatasetRecord, manifest, samples
from cxr_assets.release.card import CARD_FILE, DATA, SAMPLES_FILE, model_card, title
from cxr_assets.release.rights import CITATION_FILE, LICENCE_FILE, citation, licence, licence_note
from cxr_serving.model import bundle
from cxr_serving.model.bundle import METRICS_FILE, RECORD_FILE, BundleRecord

SPLIT_FILE = "split.csv"
KIND = "release"


class ReleaseError(Exception):
    """Bundle, report, dataset and experiment do not belong together; the message says which."""


def write_release(layout: Layout, repo: str | None, experiment: Experiment) -> Path:
    """Write ``<releases>/<version>/`` from the newest report and the bundle it evaluated.

    A release is itself a bundle: its ``bundle.json`` is the evaluated one's and names the further
    files, too, so that :func:`cxr_serving.model.bundle.verify`, the predictor and
    ``from_pretrained`` all take it. It is written aside, verified and moved into place whole; the
    same inputs give the same bytes. ``<releases>/latest.json`` stays as it is: it is for whoever
    has pushed the release, or need not. Sample images are part of it only when they are synthetic
    images; ``split.csv`` lists the images of each split by the hash of their content, without file
    names or patients.

    Args:
        layout: where dataset, bundles and reports lie and the release goes.
        repo: Hub repository that the card names, if any.
        experiment: the settings that the bundle was trained with; the card tells how to repeat it.

    Returns:
        The release's directory.

    Raises:
        ReportError: there is no report yet.
        BundleError: the bundle is gone or broken.
        ReleaseError: the dataset or the experiment is not the one of the report, the model does
            not clearly beat the baseline, or a patient seems to have images in two splits.
    """
    report = latest_report(layout)
    metrics = read_metrics(report)
    evaluated = layout.models(metrics["model"]["asset"]) / metrics["model"]["version"]
    record = bundle.verify(evaluated)
    data = DatasetRecord.read(layout.processed)
    _check(record, metrics, data, experiment)
    # The card claims it, and the check of the asset may have run on another dataset, or not at all.
    if pairs := leakage.pairs_across_splits(layout.processed):
        first = pairs[0]
        raise ReleaseError(
            f"{first.first} and {first.second} ({first.why}; {len(pairs)} such pairs): "
            f"{leakage.REMEDY}"
        )
    pictures = sorted(
        (path.name for path in report.glob("*.png")),
        key=lambda name: (name.startswith("baseline_"), name),
    )

    def write(directory: Path) -> None:
        for name in record.files:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(evaluated / name, directory / name)
        for name in (METRICS_FILE, *pictures):
            shutil.copyfile(report / name, directory / name)
        if data.synthetic:
            (directory / SAMPLES_FILE).write_bytes(
                plots.image_grid(
                    samples(layout.processed, "test", 1), "one image a class", synthetic=True
                )
            )
        card = model_card(record, metrics, data, experiment, pictures, repo)
        card.save(directory / CARD_FILE)
        source = experiment.data.source
        cited = citation(record, source, title(experiment), repo)
        (directory / CITATION_FILE).write_text(cited)
        note = licence_note(licence(record, source), DATA[source])
        (directory / LICENCE_FILE).write_text(note)
        # Names and patients stay here, and so does the order that they would give.
        images = manifest(layout.processed).query("kept").sort_values(["split", "sha256"])
        images[["split", "class", "sha256"]].to_csv(directory / SPLIT_FILE, index=False)

    layout.releases.mkdir(parents=True, exist_ok=True)
    written.remove_leftovers(
        layout.releases / record.version,
        lambda left: written.foreign(left, KIND) and bundle.foreign(left),
    )
    staging = layout.releases / f".{record.version}.{os.getpid()}.partial"
    final = layout.releases / record.version
    try:
        written.begin(staging, KIND)
        made = bundle.publish(staging, record, write)
        if not record.files.items() <= BundleRecord.read(made).files.items():
            raise ReleaseError(
                f"{evaluated} changed while it was copied: {RECORD_FILE} tells another"
            )
        written.replace(made, final, bundle.foreign, layout.set_aside)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return final


def withheld(record: BundleRecord) -> str | None:
    """Why a release is not to be pushed unless somebody insists, or None."""
    if record.synthetic:
        return "it was made from synthetic images"
    if record.pretrained is None:
        return "it was trained from random weights"
    return None


def _check(
    record: BundleRecord, metrics: dict[str, Any], data: DatasetRecord, experiment: Experiment
) -> None:
    reported = metrics["model"]
    if reported["fingerprint"] != record.fingerprint:
        raise ReleaseError(
            f"the report {metrics['version']} is not about the bundle of that version: "
            "materialise metrics_report again"
        )
    if not clearly_beats(metrics, experiment.margin):
        raise ReleaseError(
            f"{record.asset} {record.version} does not beat the baseline by margin="
            f"{experiment.margin:g}, chance allowed for: see the check beats_probe"
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
        ("synthetic images", experiment.data.source == "synthetic", record.synthetic),
        ("base weights", experiment.model.pretrained is not None, record.pretrained is not None),
    ):
        if ours != theirs:
            raise ReleaseError(
                f"{record.asset} {record.version} was not trained with the experiment in force "
                f"({name}: {theirs}, not {ours}), and the card would tell a wrong way to repeat "
                "it: set CXR_EXPERIMENT and CXR_OVERRIDES as they were, or materialise the models "
                "and metrics_report again"
            )
