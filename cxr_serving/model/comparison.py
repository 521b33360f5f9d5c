"""Differences between two models on the same images, as a report states them."""

from cxr_serving.model.metrics import Interval, Record


class Difference(Record):
    """A metric of one model less that of another on the same images, in -1..1, and its p-value."""

    estimate: float
    interval: Interval | None
    p: float


class Differences(Record):
    """Differences of the metrics of the same names; None where one is not defined."""

    macro_f1: Difference
    accuracy: Difference
    auroc_macro_ovr: Difference | None


class McNemar(Record):
    """McNemar's test: images that one model alone classifies correctly, and the p-value."""

    only_ours: int
    only_theirs: int
    p: float


class Comparison(Differences):
    """The main model less the baseline."""

    mcnemar: McNemar


class SiteDifference(Difference):
    """Of the accuracy at a site, and the images and patients of the site."""

    images: int
    patients: int


class Regression(Differences):
    """The main model less the released one, on test images that neither has learnt from.

    Attributes:
        released: version of the released model.
        same_data: whether both were trained on the same version of the data.
        images: number of these images.
        patients: number of their patients.
        left_out: number of test images of patients on whom the released model was trained or
            selected.
        classes: differences of the recall by class; None of a class without images.
        sites: differences of the accuracy by site.
    """

    released: str
    same_data: bool
    images: int
    patients: int
    left_out: int
    classes: dict[str, Difference | None]
    sites: dict[str, SiteDifference]
