"""A small valid report, for tests of what reads one."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from cxr_serving.model import store
from cxr_serving.model.bundle import Provenance
from cxr_serving.model.comparison import Comparison, Difference, McNemar
from cxr_serving.model.dataset import Change, Changes, Dataset
from cxr_serving.model.metrics import (
    Averages,
    Calibration,
    CalibrationErrors,
    ClassificationReport,
    Intervals,
    ModelReport,
    Performance,
)
from cxr_serving.model.report import METRICS_FILE, Environment, External, NoAudit, Report, Shortcuts

VERSION = "20260104T031500Z-1a2b3c4d"


def difference(estimate: float, low: float, high: float) -> Difference:
    return Difference(estimate=estimate, interval=(low, high), p=0.01)


def of_model(asset: str = "convnext_model", **changes: Any) -> ModelReport:
    averages = Averages(precision=0.8, recall=0.7, f1=0.75, support=624)
    errors = CalibrationErrors(ece=0.05, brier=0.3, nll=0.5)
    report = ModelReport(
        classification_report=ClassificationReport(
            accuracy=0.8, macro_average=averages, weighted_average=averages
        ),
        confusion_matrix=[],
        confusion_shares=[],
        classes=(),
        absent_classes=(),
        auroc_macro_ovr=0.9,
        average_precision_macro_ovr=0.85,
        auroc_ovr={},
        average_precision_ovr={},
        accuracy=0.8,
        macro_f1=0.75,
        images=624,
        model=Provenance(
            asset=asset,
            version=VERSION,
            fingerprint="f" * 64,
            input_size=224,
            created_at=datetime(2026, 1, 4, 3, 15, tzinfo=UTC),
            data_version="d" * 64,
            code_version="c" * 64,
            seed=0,
            pretrained=None,
            synthetic=True,
            temperature=1.0,
            flip_averaging=False,
            int8=None,
            dagster_run_id=None,
            mlflow_run_id=None,
        ),
        training_seconds=None,
        training_joules=None,
        intervals=Intervals(
            accuracy=(0.7, 0.85),
            macro_f1=(0.6, 0.8),
            auroc_macro_ovr=(0.8, 0.95),
            average_precision_macro_ovr=(0.7, 0.9),
            classes={},
        ),
        calibration=Calibration(temperature=1.0, before=errors, after=errors),
        abnormal=None,
        selective=[],
    )
    return report.model_copy(update=changes)


def external(**changes: Any) -> External:
    """Of 40 images of 9 patients; ``changes`` replace its attributes."""
    metrics = {name: getattr(of_model(), name) for name in Performance.model_fields}
    made = External(
        **metrics | {"images": 40},
        images_sha256="a" * 64,
        patients=9,
        unknown_patients=0,
        subgroups=[],
        gate=None,
        baseline=Performance(**metrics | {"macro_f1": 0.5}),
    )
    return made.model_copy(update=changes)


def dataset(**changes: Any) -> Dataset:
    """A dataset of two classes that has changed; ``changes`` replace its attributes."""
    made = Dataset(
        data_version="d" * 64,
        raw_data_version="0" * 64,
        classes=("normal", "viral_pneumonia"),
        synthetic=True,
        image_size=224,
        decoding="c" * 64,
        val_fraction=0.15,
        test_fraction=0.15,
        seed=0,
        counts={},
        sources={},
        sites={},
        skipped={},
        changes=Changes(
            made_on=date(2026, 1, 4),
            since="b" * 64,
            total=Change(added=50, removed=2),
            classes={"normal": Change(added=50), "viral_pneumonia": Change(removed=2)},
            sites={"north wing": Change(added=50)},
        ),
    )
    return made.model_copy(update=changes)


def report(**changes: Any) -> Report:
    """A report on 624 images; ``changes`` replace its attributes."""
    audit = NoAudit(reason="it is the same for all images")
    made = Report(
        **dict(of_model()),
        version=VERSION,
        created_at=datetime(2026, 1, 5, tzinfo=UTC),
        disclaimer="Not a medical device.",
        synthetic=True,
        images_from="synthetic images",
        images_sha256="e" * 64,
        patients=600,
        unknown_patients=0,
        skipped={},
        data_version="d" * 64,
        subgroups=[],
        gate=None,
        robustness=None,
        shortcuts=Shortcuts(frame=audit, border=audit),
        label_audit=None,
        environment=Environment(
            python="3.12", libraries={}, system="Linux", processors=2, accelerator=None
        ),
        baseline=of_model("dinov2_probe", macro_f1=0.7),
        margin=0.05,
        comparison=Comparison(
            macro_f1=difference(0.05, 0.03, 0.07),
            accuracy=difference(0.05, 0.03, 0.07),
            auroc_macro_ovr=None,
            mcnemar=McNemar(only_ours=20, only_theirs=10, p=0.1),
        ),
        regression=None,
        not_compared=None,
        clauses=[],
        trend=[],
        dataset=None,
        external={},
    )
    return made.model_copy(update=changes)


def write(directory: Path, content: bytes | None = None) -> Path:
    """``metrics.json`` in a new directory, of :func:`report` by default."""
    directory.mkdir(parents=True)
    path = directory / METRICS_FILE
    path.write_bytes(report().content() if content is None else content)
    return path


def publish(data_root: Path, version: str, content: bytes | None = None) -> Path:
    """The metrics of a report as the service reads them, of :func:`report` by default."""
    path = store.metrics_file(data_root, version)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(report().content() if content is None else content)
    return path
