"""How numbers and names are written in the page and the model card."""

from cxr_serving.model.bundle import Rejections
from cxr_serving.model.metrics import Interval
from cxr_serving.model.report import FEW_PATIENTS, LabelAudit, NoAudit

FEW_NOTE = (
    f"Fewer than {FEW_PATIENTS} patients: too few for a bootstrap over patients, whose intervals "
    "are then too narrow."
)

ALTERED_NOTE = (
    "Cropped: a third to a half of each side. Jigsaw: sixteen parts in another order. Made by a "
    "program instead of altered: noise with a spectrum as that of photographs, stripes, pages of "
    "text, shapes. No photograph is among them."
)


def score(value: float | None, interval: Interval | None = None) -> str:
    """Three decimals and the interval, where there is one."""
    if value is None:
        return "not defined"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def share(value: float | None) -> str:
    """A percentage."""
    return "not defined" if value is None else f"{value:.1%}"


def rejection(found: Rejections) -> str:
    """The share of the rejected images, and its interval."""
    if found.interval is None:
        return "no image"
    low, high = found.interval
    return f"{share(found.rejected / found.images)} ({share(low)} to {share(high)})"


def p_value(value: float) -> str:
    """Three decimals, or that it is less."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def words(name: str) -> str:
    """A class or a metric as prose."""
    return name.replace("_", " ")


def suspicions(audit: LabelAudit | NoAudit) -> str:
    """What a label audit found, in a sentence without a full stop."""
    if isinstance(audit, NoAudit):
        return f"labels not audited: {audit.reason}"
    number = {issue: sum(counts.values()) for issue, counts in audit.counts.items()}
    rejected = number.get("gate")
    return (
        f"of {audit.images:,} images, {number['label']:,} have a label in doubt, "
        f"{number['outlier']:,} are outliers and {number['duplicate']:,} are near duplicates of "
        f"another{'' if rejected is None else f'; the gate of the model rejects {rejected:,}'}"
    )
