"""The release folder: the evaluated bundle, a model card, the metrics and the plots."""

import os
import shutil
from pathlib import Path

from cxr_assets import written
from cxr_assets.evaluation.reports import latest_report
from cxr_assets.evaluation.rule import judge
from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress, held
from cxr_assets.radiographs import leakage
from cxr_assets.radiographs.dataset import DatasetRecord, samples
from cxr_assets.release import origin
from cxr_assets.release.anonymous import anonymous
from cxr_assets.release.card import CARD_FILE, SAMPLES_FILE, model_card, title
from cxr_assets.release.rights import CITATION_FILE, LICENCE_FILE, citation, licence, licence_note
from cxr_serving.model import store
from cxr_serving.model.bundle import RECORD_FILE, BundleRecord
from cxr_serving.model.report import METRICS_FILE, Report

KIND = "release"


class ReleaseError(Exception):
    """Bundle, report, dataset and experiment do not match; the message says which."""


def write_release(
    layout: Layout,
    repo: str | None,
    experiment: Experiment,
    progress: Progress = lambda line: None,
) -> Path:
    """Write ``<releases>/<version>/`` from the newest report and the bundle it evaluated.

    A release is itself a bundle: its ``bundle.json`` is the evaluated one's, extended by the added
    files, so that :func:`cxr_serving.model.store.verify`, the predictor and ``from_pretrained``
    all take it. It is written aside, verified and moved into place whole; the same inputs give the
    same bytes. ``<releases>/latest.json`` is left to the caller, who moves it after the upload, if
    any. The release holds sample images only if they are synthetic, and sites as numbers. Whether
    it is released or held is decided by :func:`cxr_assets.release.promotion.decide`.

    Args:
        layout: where dataset, bundles and reports lie and the release goes.
        repo: Hub repository that the card names, if any.
        experiment: the settings that the bundle was trained with; the card says how to repeat it.
        progress: called with a line before it waits for another process.

    Returns:
        The release's directory.

    Raises:
        ReportError: there is no report yet.
        BundleError: the bundle is gone or broken.
        ReleaseError: the dataset or the experiment is not the one of the report, or a patient
            appears to have images in two splits.
    """
    directory = latest_report(layout)
    report = Report.read(directory)
    evaluated = layout.models(report.model.asset) / report.model.version
    record = store.verify(evaluated)
    data = DatasetRecord.read(layout.processed)
    _check(record, report, data, experiment)
    report = anonymous(report, experiment.release.rule)
    # The card claims it, and the check of the asset may have run on another dataset, or not at all.
    if pairs := leakage.pairs_across_splits(layout.processed):
        first = pairs[0]
        raise ReleaseError(
            f"{first.first} and {first.second} ({first.why}; {len(pairs)} such pairs): "
            f"{leakage.REMEDY}"
        )
    plot_files = sorted(
        (path.name for path in directory.glob("*.png")),
        key=lambda name: (name.startswith("baseline_"), name),
    )

    def write(release: Path) -> None:
        for name in record.files:
            (release / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(evaluated / name, release / name)
        (release / METRICS_FILE).write_bytes(report.content())
        for name in plot_files:
            shutil.copyfile(directory / name, release / name)
        if data.synthetic:
            from cxr_assets.evaluation import plots

            (release / SAMPLES_FILE).write_bytes(
                plots.image_grid(
                    samples(layout.processed, "test", 1), "one image per class", synthetic=True
                )
            )
        card = model_card(record, report, data, experiment, plot_files, repo)
        card.save(release / CARD_FILE)
        kinds = origin.kinds(experiment)
        cited = citation(record, kinds, title(experiment), repo)
        (release / CITATION_FILE).write_text(cited, encoding="utf-8")
        note = licence_note(licence(record, kinds), origin.data(kinds))
        (release / LICENCE_FILE).write_text(note, encoding="utf-8")

    layout.releases.mkdir(parents=True, exist_ok=True)
    final = layout.releases / record.version
    # Otherwise two runs would take the unfinished releases of each other for leftovers.
    with held(layout.releases_lock, "a release is being written", progress):
        written.remove_leftovers(
            final, lambda left: written.foreign(left, KIND) and store.foreign(left)
        )
        staging = layout.releases / f".{record.version}.{os.getpid()}.partial"
        try:
            written.begin(staging, KIND)
            made = store.publish(staging, record, write)
            if not record.files.items() <= BundleRecord.read(made).files.items():
                raise ReleaseError(
                    f"{evaluated} changed while it was copied: {RECORD_FILE} records other files"
                )
            written.replace(made, final, store.foreign, layout.set_aside)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return final


def withheld(record: BundleRecord) -> str | None:
    """Why a release is not pushed unless forced, or None."""
    if record.synthetic:
        return "it was made from synthetic images"
    if record.pretrained is None:
        return "it was trained from random weights"
    return None


def _check(
    record: BundleRecord, report: Report, data: DatasetRecord, experiment: Experiment
) -> None:
    if report.model.fingerprint != record.fingerprint:
        raise ReleaseError(
            f"the report {report.version} is not about the bundle of that version: "
            "materialise metrics_report again"
        )
    if report.clauses != judge(report, experiment.release.rule):
        raise ReleaseError(
            f"the report {report.version} was judged by another rule than the current "
            "release.rule: materialise metrics_report again"
        )
    if data.data_version != record.data_version:
        raise ReleaseError(
            f"the processed dataset is of version {data.data_version[:8]}, {record.asset} "
            f"{record.version} was trained on {record.data_version[:8]}: "
            f"materialise {record.asset} and metrics_report again"
        )
    for name, ours, theirs in (
        ("seed", experiment.seed, record.seed),
        ("classes", experiment.classes, record.classes),
        ("data.image_size", experiment.data.image_size, record.input_size),
        ("synthetic images", origin.kinds(experiment) == ("synthetic",), record.synthetic),
        ("distillation", experiment.trainer.distillation > 0, record.teacher is not None),
        ("base weights", experiment.model.pretrained is not None, record.pretrained is not None),
    ):
        if ours != theirs:
            raise ReleaseError(
                f"{record.asset} {record.version} was not trained with the current experiment "
                f"({name}: {theirs}, not {ours}), so the card could not say how to repeat "
                "it: set CXR_EXPERIMENT and CXR_OVERRIDES as they were, or materialise the models "
                "and metrics_report again"
            )
