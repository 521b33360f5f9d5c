"""From stored values to the grey levels that viewers show at first."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cxr_serving.images.dicom.elements import integer, items, numbers, real, word
from cxr_serving.images.dicom.rejection import Rejected, Rejection

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def show(dataset: "Dataset", stored: npt.NDArray[Any], inverse: bool) -> npt.NDArray[np.uint8]:
    """Apply modality transform, window and polarity, in the order of PS3.4 N.2.

    They are computed for each value that a pixel can have: there are far fewer than pixels.

    Args:
        dataset: elements of the file.
        stored: [H, W] of 8 or 16 bits, signed or not.
        inverse: low values are bright.

    Returns:
        uint8 [H, W].

    Raises:
        Rejected: all pixels are padding, or have no finite grey level.
    """
    unsigned = np.dtype(f"u{stored.itemsize}")
    codes = stored.view(unsigned)
    values = np.arange(2 ** (8 * stored.itemsize)).astype(unsigned).view(stored.dtype)
    padded = _padding(dataset, values)
    # Row by row, here and below: indexing copies to 64-bit integers.
    seen = np.zeros(values.shape, np.bool_)
    for row in codes:
        seen[row] = True
    seen &= ~padded
    if not seen.any():
        raise Rejected(Rejection.BLANK)
    levels = _modality(dataset, values.astype(np.float64), seen)
    shades = _voi(dataset, levels, seen)
    if not (np.isfinite(levels).all() and np.isfinite(shades).all()):
        raise Rejected(Rejection.SHADING)
    table = np.rint(255 * np.clip(1 - shades if inverse else shades, 0, 1)).astype(np.uint8)
    table[padded] = 0
    shown = np.empty(stored.shape, np.uint8)
    for row, line in zip(codes, shown, strict=True):
        line[:] = table[row]
    return shown


def _padding(dataset: "Dataset", values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which stored values are padding (PS3.3 C.7.5.1.1.2)."""
    if real(dataset, "PixelPaddingValue") is None:
        return np.zeros(values.shape, np.bool_)
    first = integer(dataset, "PixelPaddingValue")
    last = integer(dataset, "PixelPaddingRangeLimit", first)
    # Some files write a signed value as unsigned; its bits are the same.
    low, high = sorted(values[bound % values.size] for bound in (first, last))
    return np.asarray((values >= low) & (values <= high))


def _modality(
    dataset: "Dataset", values: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The values in units of the modality (PS3.3 C.11.1)."""
    for item in items(dataset, "ModalityLUTSequence"):
        looked_up = _look_up(values, seen, item)
        if looked_up is not None:
            return looked_up
    slope, intercept = real(dataset, "RescaleSlope"), real(dataset, "RescaleIntercept")
    # One without the other, or a slope of 0, is ignored.
    return values * slope + intercept if slope and intercept is not None else values


def _voi(
    dataset: "Dataset", levels: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """0 to 1 by the first usable look-up table or window, or else by range (PS3.3 C.11.2).

    Done here because pydicom 3.0's ``apply_voi`` wraps around in tables of 8 bits, and its
    ``apply_windowing`` turns an image negative where the rescale slope is negative.
    """
    for item in items(dataset, "VOILUTSequence"):
        grey = _look_up(levels, seen, item)
        if grey is not None:
            # The fewest bits that hold the table: many descriptors say 16 bits for 12.
            most: float = 2 ** max(1, int(grey.max()).bit_length()) - 1
            return grey / most
    windows = zip(numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth"), strict=False)
    # A width below 1 is intended where values are that close to one another.
    narrowest = min(1.0, float(np.abs(np.diff(levels)).min()))
    for center, width in windows:
        if math.isfinite(center) and width > 0 and width >= narrowest:
            return _window(levels, center, width, word(dataset, "VOILUTFunction"))
    low, high = levels[seen].min(), levels[seen].max()
    stretched: npt.NDArray[np.float64] = (levels - low) / ((high - low) or 1)
    return stretched.clip(0, 1)


def _window(
    levels: npt.NDArray[np.float64], center: float, width: float, function: str
) -> npt.NDArray[np.float64]:
    """0 to 1 by a window; an unknown function counts as LINEAR, the default."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # infinity is right, and gives the shade 0
            return 1 / (1 + np.exp(-4 * (levels - center) / width))
    if function != "LINEAR_EXACT" and width >= 1:
        center, width = center - 0.5, width - 1
    if width == 0:
        return (levels > center).astype(np.float64)
    shades: npt.NDArray[np.float64] = (levels - center) / width + 0.5
    return shades.clip(0, 1)


def _look_up(
    levels: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_], item: "Dataset"
) -> npt.NDArray[np.float64] | None:
    """Levels through a table (PS3.3 C.11.1.1); None where the item holds none.

    Number and depth of its entries are taken from the table, not from its descriptor.
    """
    descriptor, data = numbers(item, "LUTDescriptor"), item.get("LUTData")
    if len(descriptor) != 3 or not np.isfinite(descriptor).all() or data is None:
        return None
    entries, first, _ = map(int, descriptor)
    entries = entries % 2**16 or 2**16
    if not isinstance(data, bytes):
        data = np.atleast_1d(np.asarray(data, np.int64)).astype("<u2").tobytes()
        order = "<"
    else:
        order = ">" if item.original_encoding[1] is False else "<"
    if len(data) - entries in (0, 1):  # of 8 bits, two in a word
        table = np.frombuffer(data, "u1")[:entries]
    else:
        table = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")[: 2**16]
    if not table.size:
        return None
    # Signed and unsigned are mixed up here by some: of both, the one that lies over the image.
    low, high = levels[seen].min(), levels[seen].max()
    first = next(
        (
            start
            for start in (first, first - 2**16, first + 2**16)
            if start <= high and low < start + table.size
        ),
        first,
    )
    index = np.clip(np.rint(levels) - first, 0, table.size - 1).astype(np.intp)
    grey: npt.NDArray[np.float64] = table[index].astype(np.float64)
    return grey
