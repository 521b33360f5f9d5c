"""Values of elements of a DICOM file, read as tolerantly as viewers do."""

import math
from typing import TYPE_CHECKING, Any

from cxr_serving.images.dicom.rejection import Rejected, Rejection

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# A whole look-up table of 16 bits takes 128 KiB, and an image may offer several.
_SEQUENCE_BYTES = 2**20
# Value representations in which numbers are written as text, validly or not.
_TEXTS = ("DS", "IS", "LO", "SH", "CS", "ST", "LT", "UT")


def word(dataset: "Dataset", keyword: str) -> str:
    """The first value of a text, stripped and in upper case; "" where there is none."""
    return next((str(value).strip().upper() for value in _values(dataset, keyword)), "")


def numbers(dataset: "Dataset", keyword: str) -> list[float]:
    """All values of an element; NaN for those that are not finite numbers.

    Texts are parsed here: pydicom gives up on a decimal comma, which some devices write.
    """
    from pydicom.datadict import dictionary_VR
    from pydicom.tag import Tag

    if keyword not in dataset:
        return []
    element = dataset.get_item(Tag(keyword))
    raw, vr = element.value, element.VR
    if isinstance(raw, bytes) and (dictionary_VR(keyword) if vr in (None, "UN") else vr) in _TEXTS:
        values: list[Any] = raw.decode("latin-1").replace(",", ".").rstrip("\0 ").split("\\")
    else:
        values = _values(dataset, keyword)
    return [_number(value) for value in values]


def real(dataset: "Dataset", keyword: str) -> float | None:
    """The first value; None where it is not a finite number."""
    first = next(iter(numbers(dataset, keyword)), math.nan)
    return first if math.isfinite(first) else None


def integer(dataset: "Dataset", keyword: str, default: int | None = None) -> int:
    """The first value.

    Raises:
        Rejected: it is not a number, and there is no default.
    """
    first = real(dataset, keyword)
    value = default if first is None else round(first)
    if value is None:
        raise Rejected(Rejection.BROKEN)
    return value


def items(dataset: "Dataset", keyword: str) -> list["Dataset"]:
    """The items of a sequence.

    Raises:
        Rejected: they take more memory than look-up tables need.
    """
    from pydicom.tag import Tag

    if keyword not in dataset:
        return []
    raw = dataset.get_item(Tag(keyword)).value
    if isinstance(raw, bytes) and len(raw) > _SEQUENCE_BYTES:
        raise Rejected(Rejection.ELEMENTS)
    return list(dataset[keyword].value or ())


def _values(dataset: "Dataset", keyword: str) -> list[Any]:
    value = dataset.get(keyword)
    if value is None:
        return []
    return [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else [*value]


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan
