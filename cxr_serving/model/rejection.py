"""What the gate of a model does to images that it should accept, and to others, as a report says.

In the intervals of :class:`cxr_serving.model.bundle.Rejections`, images of one patient count as
independent.
"""

from cxr_serving.model.bundle import Rejections
from cxr_serving.model.metrics import Interval, Record


class Judged(Rejections):
    """How many of some images are rejected, and why.

    Attributes:
        reasons: rejected images by reason, the most frequent first; one may have several.
    """

    reasons: dict[str, int]


class JudgedPart(Judged):
    """On the part ``subgroup`` of the images, when they are stratified by ``group``."""

    group: str
    subgroup: str


class FalseRejection(Record):
    """Rejection of labelled chest radiographs.

    Attributes:
        total: of all of them.
        classes: by class; one without images is left out.
        subgroups: on the parts of them that the metrics are on.
    """

    total: Judged
    classes: dict[str, Judged]
    subgroups: list[JudgedPart]


class Altered(Judged):
    """Images that a gate should reject.

    Attributes:
        uncertain: how many answers a service calls uncertain by default, with or without a gate.
        withheld: how many are rejected, uncertain or both.
    """

    uncertain: int
    withheld: int


class Selected(Record):
    """Metrics on the images that are left; None where there are too few for one."""

    images: int
    accuracy: float | None
    interval: Interval | None
    macro_f1: float | None
    macro_f1_interval: Interval | None


class GateReport(FalseRejection):
    """What a report says of the gate.

    Attributes:
        altered: rejection of images that were altered, or are no radiographs, by kind.
        confidence: answers whose most probable class is below it are uncertain.
        selective: metrics on the images that are left: ``all``, ``accepted``, ``certain``, and
            ``accepted and certain``.
    """

    altered: dict[str, Altered]
    confidence: float
    selective: dict[str, Selected]
