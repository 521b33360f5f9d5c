"""Metrics of one model on a set of images, as a report records them.

Unless said otherwise a metric is in 0..1, None where it is not defined on the images, and an
interval is the 95 % interval of a bootstrap over patients, None where most draws define none.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cxr_serving.model.bundle import Provenance

Interval = tuple[float, float]
Headline = Literal["accuracy", "macro_f1", "auroc_macro_ovr", "average_precision_macro_ovr"]


class Record(BaseModel):
    """Part of a report; an unknown key, or a number that is not finite, is rejected."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        protected_namespaces=(),
    )


class Averages(Record):
    """Precision, recall and F1, and the number of images they are computed on."""

    precision: float
    recall: float
    f1: float = Field(alias="f1-score")
    support: int


class ClassScores(Record):
    """The same of one class; None of a class without images."""

    precision: float | None
    recall: float | None
    f1: float | None = Field(alias="f1-score")
    support: int


class ClassificationReport(Record):
    """As scikit-learn's ``classification_report(..., output_dict=True)``: a key for each class."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ClassScores]

    accuracy: float
    macro_average: Averages = Field(alias="macro avg")
    weighted_average: Averages = Field(alias="weighted avg")

    @property
    def classes(self) -> dict[str, ClassScores]:
        """Scores by class name."""
        return self.__pydantic_extra__


class Scores(Record):
    """Metrics of a classifier on N images of C classes.

    Attributes:
        classification_report: precision, recall and F1 of each class, and their means.
        confusion_matrix: images, [C][C]; rows are the true class, columns the predicted one.
        confusion_shares: of each row; None in the row of a class without images.
        classes: names in index order.
        absent_classes: classes without images, which no mean counts.
        auroc_macro_ovr: unweighted mean of ``auroc_ovr``.
        average_precision_macro_ovr: unweighted mean of ``average_precision_ovr``.
        auroc_ovr: AUROC by class, one versus rest.
        average_precision_ovr: average precision by class, one versus rest.
        accuracy: share of images whose top-1 class is right (micro).
        macro_f1: unweighted mean of F1 over the classes that have images.
        images: N.
    """

    classification_report: ClassificationReport
    confusion_matrix: list[list[int]]
    confusion_shares: list[list[float | None]]
    classes: tuple[str, ...]
    absent_classes: tuple[str, ...]
    auroc_macro_ovr: float | None
    average_precision_macro_ovr: float | None
    auroc_ovr: dict[str, float | None]
    average_precision_ovr: dict[str, float | None]
    accuracy: float
    macro_f1: float
    images: int


class ClassIntervals(Record):
    """Intervals of the metrics of one class."""

    precision: Interval | None
    recall: Interval | None
    f1: Interval | None = Field(alias="f1-score")
    auroc: Interval | None
    average_precision: Interval | None


class Intervals(Record):
    """Intervals of the metrics of the same names."""

    accuracy: Interval | None
    macro_f1: Interval | None
    auroc_macro_ovr: Interval | None
    average_precision_macro_ovr: Interval | None
    classes: dict[str, ClassIntervals]


class CalibrationErrors(Record):
    """Calibration metrics, 0 being best in each.

    Attributes:
        ece: expected calibration error, adaptive bins.
        brier: Brier score summed over the classes, in 0..2.
        nll: negative log-likelihood, in nats.
    """

    ece: float
    brier: float
    nll: float


class Calibration(Record):
    """Calibration before and after the logits are divided by ``temperature``."""

    temperature: float
    before: CalibrationErrors
    after: CalibrationErrors


class OperatingPoint(Record):
    """An image is called abnormal when 1 - its probability of normal reaches ``threshold``."""

    threshold: float
    sensitivity: float
    specificity: float


class Abnormal(Record):
    """All other classes against the class ``normal``.

    Attributes:
        auroc: of 1 - the probability of normal.
        sensitivity, specificity: of the top-1 class.
        at_sensitivity: the highest threshold that reaches a sensitivity, by that sensitivity.
    """

    auroc: float
    sensitivity: float
    specificity: float
    at_sensitivity: dict[str, OperatingPoint]


class Coverage(Record):
    """Metrics on the ``images`` whose confidence is at least ``confidence``, a share ``coverage``.

    ``macro_f1`` is None where a class has too few images left.
    """

    coverage: float
    images: int
    confidence: float
    accuracy: float
    macro_f1: float | None


class Performance(Scores):
    """All metrics of one model.

    Attributes:
        intervals: of the metrics.
        calibration: of its probabilities.
        abnormal: as a detector of anything but normal; None where no class is ``normal``, or the
            images are of one kind only.
        selective: metrics when the least certain images are set aside, coverage descending.
    """

    intervals: Intervals
    calibration: Calibration
    abnormal: Abnormal | None
    selective: list[Coverage]

    def headline(self, name: Headline) -> tuple[float | None, Interval | None]:
        """A metric over all classes, and its interval."""
        return getattr(self, name), getattr(self.intervals, name)


class ModelReport(Performance):
    """All metrics of one model, and where it comes from.

    Attributes:
        model: its provenance.
        training_seconds: wall time of the training; None where it was not recorded.
        training_joules: energy of the processors during the training; None where not measurable.
    """

    model: Provenance
    training_seconds: float | None
    training_joules: float | None
