"""The model card: what the model is and is for, its metrics, how to use and reproduce it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from cxr_assets.evaluation.wording import ALTERED_NOTE, rejection, score, words
from cxr_assets.experiment import Experiment
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_assets.radiographs.leakage import SIMILAR
from cxr_assets.release import origin, sections
from cxr_assets.release.checklists import checklist
from cxr_assets.release.reproduction import command
from cxr_assets.release.rights import base_model, licence, terms
from cxr_serving.model.bundle import BundleRecord
from cxr_serving.model.comparison import Difference
from cxr_serving.model.metrics import Headline, ModelReport
from cxr_serving.model.report import NoAudit, Report

CARD_FILE = "README.md"
SAMPLES_FILE = "samples.png"

_TEMPLATE = Path(__file__).with_name("card.md")

_SYNTHETIC = (
    "Made from synthetic images: this model has never seen a radiograph of a patient, and its "
    "metrics say nothing about patients."
)
_RANDOM = "Trained from random weights, not pretrained: expect less than from a fine-tuned model."
_DISTILLED = (
    "A research model, trained from random weights with a pretrained network as its teacher."
)
_FINE_TUNED = "A research model, fine-tuned from weights that were pretrained on other images."

_HUB_DATA = "hf-vision/chest-xray-pneumonia"  # the images of Kaggle, on the Hub


def title(experiment: Experiment) -> str:
    """What the release is called."""
    return f"{experiment.model.name} on chest radiographs"


def model_card(
    record: BundleRecord,
    report: Report,
    data: DatasetRecord,
    experiment: Experiment,
    plots: Sequence[str],
    repo: str | None,
) -> ModelCard:
    """Write the card of a release; every number in it comes from the arguments.

    Args:
        record: of the released bundle.
        report: on the released bundle, with a baseline.
        data: record of the processed dataset.
        experiment: the settings that the bundle was trained with.
        plots: file names of the report's plots, in the order to show them.
        repo: Hub repository, if any.

    Raises:
        ValueError: the report has no baseline.
    """
    if report.baseline is None or report.comparison is None:
        raise ValueError(f"the report {report.version} has no baseline")
    difference = report.comparison.macro_f1
    kinds = origin.kinds(experiment)
    name = licence(record, kinds)
    card_data = ModelCardData(
        license=name,
        datasets=[_HUB_DATA] if "kaggle" in kinds else None,
        library_name="transformers",
        pipeline_tag="image-classification",
        base_model=base_model(record),
        tags=_tags(record),
        metrics=["f1", "accuracy", "roc_auc"],
        model_name=(repo or experiment.model.name).split("/")[-1],
        eval_results=_eval_results(record, report, origin.names(kinds)),
    )
    excluded = sum(data.skipped.values())
    included = sum(sum(counts.values()) for counts in data.counts.values())
    known = {
        "title": title(experiment),
        "record": record,
        "report": report,
        "data": data,
        "experiment": experiment,
        "included": included,
        "excluded": excluded,
        "external": any(source.use == "test" for source in experiment.data.listed),
    }
    card: ModelCard = ModelCard.from_template(
        card_data,
        template_path=str(_TEMPLATE),
        notice=_notice(record),
        title=title(experiment),
        classes=", ".join(name.replace("_", " ") for name in record.classes),
        record=record,
        repo=repo,
        report=report,
        baseline=report.baseline,
        data=data,
        similar=SIMILAR,
        clause_table=_clause_table(report),
        failed=[clause.name for clause in report.clauses if not clause.passed],
        impact_table=_impact_table(report),
        claim_table=_checklist_table("claim", known),
        tripod_table=_checklist_table("tripod", known),
        plots=plots,
        samples=SAMPLES_FILE,
        population=origin.population(kinds),
        children=kinds == ("kaggle",),
        overall_table=_overall_table(report.models),
        class_table=_class_table(report),
        difference=score(difference.estimate, difference.interval),
        subgroup_table=sections.subgroups(report.subgroups),
        gate_checks=record.gate and sections.gate_checks(record.gate),
        gate_table=sections.gate(report),
        rejected_in_validation=record.gate and rejection(record.gate.validation),
        altered_note=ALTERED_NOTE,
        external_table=sections.external(report),
        robustness_table=sections.robustness(report),
        changed=sections.changed(report),
        calibration_table=_calibration_table(report),
        shortcut_table=_shortcut_table(report),
        count_table=_table(
            ["split", *record.classes],
            [
                [split, *(counts[c] for c in record.classes)]
                for split, counts in data.counts.items()
            ],
        ),
        identity_table=_table(
            ["what", "identity"],
            [
                ["data version", f"`{record.data_version}`"],
                ["code version", f"`{record.code_version}`"],
                ["fingerprint", f"`{record.fingerprint}`"],
                ["made at", record.created_at.isoformat(timespec="seconds")],
            ],
        ),
        data_text=origin.data(kinds),
        limits=origin.limits(experiment, record.classes),
        command=command(experiment),
        licence_text=terms(name) + "\n",
    )
    return card


def _notice(record: BundleRecord) -> str:
    if record.synthetic:
        return _SYNTHETIC
    if record.pretrained:
        return _FINE_TUNED
    return _DISTILLED if record.teacher else _RANDOM


def _tags(record: BundleRecord) -> list[str]:
    pneumonia = any("pneumonia" in name for name in record.classes)
    return [
        "chest-x-ray",
        *(["pneumonia"] if pneumonia else []),
        *(["synthetic"] if record.synthetic else []),
    ]


def _eval_results(record: BundleRecord, report: Report, names: tuple[str, str]) -> list[EvalResult]:
    name, kind = names
    return [
        EvalResult(
            task_type="image-classification",
            dataset_name=name,
            dataset_type=kind,
            dataset_split="test",
            dataset_revision=record.data_version,
            metric_type=metric,
            metric_name=label,
            metric_value=value,
        )
        for value, metric, label in (
            (report.macro_f1, "f1", "macro F1"),
            (report.accuracy, "accuracy", "accuracy"),
            (report.auroc_macro_ovr, "roc_auc", "macro AUROC, one versus rest"),
        )
        if value is not None
    ]


def _overall_table(models: Sequence[ModelReport]) -> str:
    main, baseline = models
    rows: tuple[tuple[Headline, str], ...] = (
        ("macro_f1", "macro F1"),
        ("accuracy", "accuracy"),
        ("auroc_macro_ovr", "macro AUROC, one versus rest"),
    )
    return _table(
        ["metric", main.model.asset, f"{baseline.model.asset} (baseline)"],
        [[label, *(score(*model.headline(key)) for model in models)] for key, label in rows],
    )


def _class_table(report: Report) -> str:
    rows = []
    for name in report.classes:
        row, between = report.classification_report.classes[name], report.intervals.classes[name]
        rows.append(
            [
                name,
                score(row.precision, between.precision),
                score(row.recall, between.recall),
                score(row.f1, between.f1),
                score(report.auroc_ovr[name], between.auroc),
                row.support,
            ]
        )
    return _table(["class", "precision", "recall", "F1", "AUROC", "images"], rows)


def _calibration_table(report: Report) -> str:
    before, after = report.calibration.before, report.calibration.after
    return _table(
        ["metric, 0 is best", "before temperature scaling", "as served"],
        [
            [label, score(worse), score(served)]
            for label, worse, served in (
                ("expected calibration error, adaptive bins", before.ece, after.ece),
                ("Brier score, 0 to 2", before.brier, after.brier),
                ("negative log-likelihood, nats", before.nll, after.nll),
            )
        ],
    )


def _shortcut_table(report: Report) -> str:
    rows = []
    for label, audit in (
        ("width and height of the image", report.shortcuts.frame),
        ("the outermost sixteenth on each side", report.shortcuts.border),
    ):
        if isinstance(audit, NoAudit):
            rows.append([label, f"not audited: {audit.reason}", ""])
        else:
            rows.append([label, score(audit.macro_f1), score(audit.gain)])
    return _table(["what the classifier sees", "macro F1", "gain of the model"], rows)


def _clause_table(report: Report) -> str:
    return _table(
        ["clause", "figure", "limit", "outcome", ""],
        [
            [
                clause.name,
                "none" if clause.figure is None else score(clause.figure, clause.interval),
                f"{clause.limit:g}",
                "passed" if clause.passed else "**failed**",
                clause.text,
            ]
            for clause in report.clauses
        ],
    )


def _impact_table(report: Report) -> str | None:
    """What changes for whom, compared with the released model."""
    found = report.regression
    if found is None:
        return None
    changes: list[tuple[str, Difference | None]] = [
        ("macro F1", found.macro_f1),
        ("accuracy", found.accuracy),
        ("macro AUROC, one versus rest", found.auroc_macro_ovr),
        *((f"recall, {words(name)}", change) for name, change in found.classes.items()),
        *((f"accuracy, {name}", change) for name, change in found.sites.items()),
    ]
    return _table(
        ["metric", "difference"],
        [
            [name, score(change.estimate, change.interval) if change else "not compared"]
            for name, change in changes
        ],
    )


def _checklist_table(name: str, known: Mapping[str, Any]) -> str:
    return _table(["item", "asks for", "answer, or section of this card"], checklist(name, **known))


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
