"""What a model loses on images as other scanners would make them, as a report says."""

from cxr_serving.model.metrics import Interval, Record


class Loss(Record):
    """A metric on changed images.

    Attributes:
        value: of the metric.
        drop: by how much it is lower than on the same images unchanged.
        interval: of the drop, paired, over patients; None where it cannot be computed.
    """

    value: float
    drop: float
    interval: Interval | None


class Scanned(Record):
    """On the images as one simulated scanner makes them.

    Attributes:
        description: what the scanner does, in words.
        macro_f1: over the classes that have images.
        recalls: by class; one without images is left out.
        rejected: how many of the images the gate of the model rejects, where it has one.
    """

    description: str
    macro_f1: Loss
    recalls: dict[str, Loss]
    rejected: int | None

    @property
    def most_affected(self) -> str:
        """The class whose recall drops most; the first of equals."""
        return max(self.recalls, key=lambda name: self.recalls[name].drop)


class Robustness(Record):
    """A model against simulated scanners, on some of the validation images.

    Attributes:
        images: how many there are; each is changed by every scanner.
        patients: that they are of.
        macro_f1, recalls, rejected: on the images unchanged, as of :class:`Scanned`.
        scanners: by name.
    """

    images: int
    patients: int
    macro_f1: float
    recalls: dict[str, float]
    rejected: int | None
    scanners: dict[str, Scanned]
