"""The report on a model: the contents of ``metrics.json``, and the one place that knows its keys.

The pipeline writes ``<reports>/<version>/metrics.json``, and a copy for the service, which sees no
report, as these show images; a release carries its own. The top level holds the metrics of the main
model, ``baseline`` the same of the model it is compared with. Conventions are those of
:mod:`cxr_serving.model.metrics`.
"""

import json
from pathlib import Path
from typing import Any, Self

from pydantic import AwareDatetime, ValidationError

from cxr_serving.model import store
from cxr_serving.model.comparison import Comparison, Regression
from cxr_serving.model.dataset import Changes, Dataset
from cxr_serving.model.metrics import Interval, ModelReport, Performance, Record
from cxr_serving.model.rejection import FalseRejection, GateReport
from cxr_serving.model.robustness import Robustness

METRICS_FILE = "metrics.json"


class ReportError(Exception):
    """A report cannot be made or read; the message says what is wrong and what to do."""


class MissingReport(ReportError):
    """There is no report yet."""


# Fewer clusters than this are few (Cameron & Miller 2015, doi:10.3368/jhr.50.2.317: from 20 to 50).
FEW_PATIENTS = 30


class Subgroup(Record):
    """Metrics on the part ``subgroup`` of the images, when they are stratified by ``group``.

    ``interval`` is that of the accuracy; ``macro_f1`` is None where the part has one class only. A
    single patient has no interval.
    """

    group: str
    subgroup: str
    images: int
    patients: int
    accuracy: float
    interval: Interval | None
    macro_f1: float | None
    macro_f1_interval: Interval | None

    @property
    def few(self) -> bool:
        """Whether it has so few patients that the intervals are too narrow."""
        return self.patients < FEW_PATIENTS


class Audit(Record):
    """Metrics of a classifier that does not see the lungs; ``gain`` is what the model adds to them.

    ``gain`` is the model's macro F1 less that of the classifier, in -1..1.
    """

    macro_f1: float
    accuracy: float
    auroc_macro_ovr: float | None
    gain: float


class NoAudit(Record):
    """Why there is no audit."""

    reason: str


class Shortcuts(Record):
    """Audits of what the size of an image and its border give away."""

    frame: Audit | NoAudit
    border: Audit | NoAudit


class LabelAudit(Record):
    """How many images need a second look; which ones is in the local report alone.

    Attributes:
        images: number of images that were audited, of all splits.
        agreement: share of the labels that the models which judge them agree with: the lower it
            is, the less a doubt means.
        counts: suspicious images by issue (``label``, ``outlier``, ``duplicate``, and ``gate``
            where the model has one) and given class; one with two issues counts for both.
    """

    images: int
    agreement: float
    counts: dict[str, dict[str, int]]


class Environment(Record):
    """Software and machine of the evaluation; None for what is not known.

    ``processors`` counts those that the evaluation may use, which in a container may be fewer than
    the machine has.
    """

    python: str
    libraries: dict[str, str | None]
    system: str
    processors: int
    accelerator: str | None


class Clause(Record):
    """One clause of the rule for release, and whether the model fulfils it.

    Attributes:
        name: of the clause, and of the asset check that shows it.
        figure: what is judged; None where it could not be computed.
        interval: of the figure.
        limit: of the setting in ``release.rule``.
        passed: whether the clause is fulfilled.
        text: all of this in a sentence.
    """

    name: str
    figure: float | None
    interval: Interval | None
    limit: float
    passed: bool
    text: str


class TrendPoint(Record):
    """A training of the main model; ``test_macro_f1`` is None where there is no report on it."""

    version: str
    created_at: AwareDatetime
    data_version: str
    seed: int
    validation_macro_f1: float | None
    test_macro_f1: float | None
    released: bool


class External(Performance):
    """Metrics of the main model on a source that is only for evaluation.

    Nothing is chosen by them: no model, no threshold, no release.

    Attributes:
        images_sha256: over the hash and the class of each image.
        patients: number of patients.
        unknown_patients: images whose patient is unknown, each counted as a patient of its own.
        subgroups: metrics on parts of the images.
        gate: which of them the main model's gate rejects, where it has one.
        baseline: metrics of the model it is compared with, if any.
    """

    images_sha256: str
    patients: int
    unknown_patients: int
    subgroups: list[Subgroup]
    gate: FalseRejection | None
    baseline: Performance | None

    @property
    def models(self) -> list[Performance]:
        """The main model, and the baseline if there is one."""
        return [self, *([self.baseline] if self.baseline else [])]


class Report(ModelReport):
    """The contents of ``metrics.json``.

    Attributes:
        version: of the main model.
        created_at: when the report was made, in UTC.
        disclaimer: what the model must not be used for.
        synthetic: whether images or model are synthetic: the metrics say nothing about patients.
        images_from: what the images are, in words.
        images_sha256: over the hash and the class of each image.
        patients: number of patients.
        unknown_patients: images whose patient is unknown, each counted as a patient of its own.
        skipped: files that were not evaluated, with the reason.
        data_version: of the dataset; None of a folder or a table.
        subgroups: metrics on parts of the images.
        gate: what the main model's gate rejects, where it has one.
        robustness: of the main model to simulated scanners; None of a folder or a table.
        shortcuts: what a classifier reaches without seeing the lungs.
        label_audit: how many images of the dataset need a second look; None of a folder.
        environment: what the report was made with.
        baseline: metrics of the model it is compared with, if any.
        margin: macro F1 less that of the baseline.
        comparison: with the baseline.
        regression: comparison with the released model, where there is another.
        not_compared: why there is no such comparison though there is a release.
        clauses: of the rule for release; empty of a folder.
        trend: the last trainings, oldest first.
        dataset: that the test split belongs to; None of a folder or a table.
        external: metrics on sources that are only for evaluation, by source.
    """

    version: str
    created_at: AwareDatetime
    disclaimer: str
    synthetic: bool
    images_from: str
    images_sha256: str
    patients: int
    unknown_patients: int
    skipped: dict[str, str]
    data_version: str | None
    subgroups: list[Subgroup]
    gate: GateReport | None
    robustness: Robustness | None
    shortcuts: Shortcuts
    label_audit: LabelAudit | NoAudit | None
    environment: Environment
    baseline: ModelReport | None
    margin: float | None
    comparison: Comparison | None
    regression: Regression | None
    not_compared: str | None
    clauses: list[Clause]
    trend: list[TrendPoint]
    dataset: Dataset | None
    external: dict[str, External]

    @property
    def changes(self) -> Changes | None:
        """Of the dataset since the previous one, where there was one."""
        return self.dataset.changes if self.dataset else None

    @property
    def models(self) -> list[ModelReport]:
        """The main model, and the baseline if there is one."""
        return [self, *([self.baseline] if self.baseline else [])]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """As :meth:`load`, in the directory of a report, of all reports, or of a release."""
        return cls.load(directory / METRICS_FILE)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file with the contents of ``metrics.json``.

        Raises:
            MissingReport: there is none.
            ReportError: it cannot be read, or is not a report of this format.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise MissingReport(
                f"no report in {path.parent}: materialise metrics_report first"
            ) from error
        except OSError as error:
            raise ReportError(
                f"{path} cannot be read ({error.strerror}): materialise metrics_report again"
            ) from error
        except ValidationError as error:
            first, *others = error.errors()
            place = ".".join(map(str, first["loc"])) or "contents"
            more = f", and {len(others)} more problems" if others else ""
            raise ReportError(
                f"{path} is not a report of this format ({place}: {first['msg']}{more}): "
                "materialise metrics_report again"
            ) from error

    def content(self) -> bytes:
        """``metrics.json``, as :meth:`read` takes it."""
        values: dict[str, Any] = self.model_dump(mode="json")
        return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()


def find_report(data_root: Path, bundle_directory: Path) -> Report | None:
    """The report on a bundle or a release; None where there is none yet.

    A release has its metrics beside it; those of other bundles are below the data root, by version.

    Raises:
        ReportError: it cannot be read, or is not a report of this format.
    """
    for path in (
        bundle_directory / METRICS_FILE,
        store.metrics_file(data_root, bundle_directory.name),
    ):
        try:
            return Report.load(path)
        except MissingReport:
            continue
    return None
