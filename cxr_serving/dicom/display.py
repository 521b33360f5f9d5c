"""From stored values to the grey levels that a viewer shows at first."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cxr_serving.dicom.header import integer, item_of, real
from cxr_serving.dicom.rejection import Rejected, Rejection

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def show(film: "Dataset", stored: npt.NDArray[Any], inverse: bool) -> npt.NDArray[np.uint8]:
    """Grey levels as PS3.4 N.2 orders them: modality, then window, then polarity.

    They are computed for every value that a pixel can have, which are far fewer than pixels.
    """
    unsigned = np.dtype(f"u{stored.itemsize}")
    codes = stored.view(unsigned)
    values = np.arange(2 ** (8 * stored.itemsize)).astype(unsigned).view(stored.dtype)
    padded = _padding(film, values)
    levels = _modality(film, values.astype(np.float64))
    shades = _voi(film, levels)
    if shades is None:
        # A row at a time, here and below: an index is copied to 64-bit integers.
        seen = np.zeros(values.shape, np.bool_)
        for row in codes:
            seen[row] = True
        if not (seen & ~padded).any():
            raise Rejected(Rejection.BLANK)
        low, high = levels[seen & ~padded].min(), levels[seen & ~padded].max()
        shades = (np.clip(levels, low, high) - low) / ((high - low) or 1)
    if not (np.isfinite(levels).all() and np.isfinite(shades).all()):
        raise Rejected(Rejection.SHADING)
    table = np.rint(255 * np.clip(1 - shades if inverse else shades, 0, 1)).astype(np.uint8)
    table[padded] = 0
    shown = np.empty(stored.shape, np.uint8)
    for row, line in zip(codes, shown, strict=True):
        line[:] = table[row]
    return shown


def _padding(film: "Dataset", values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which stored values say that there is no film (PS3.3 C.7.5.1.1.2)."""
    if film.get("PixelPaddingValue") is None:
        return np.zeros(values.shape, np.bool_)
    first = integer(film, "PixelPaddingValue")
    last = integer(film, "PixelPaddingRangeLimit", first)
    # Some files write a signed value as unsigned; its bits are the same.
    low, high = sorted(values[bound % values.size] for bound in (first, last))
    return np.asarray((values >= low) & (values <= high))


def _modality(film: "Dataset", values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The values in units of the modality (PS3.3 C.11.1)."""
    item = item_of(film, "ModalityLUTSequence")
    if item is not None:
        return _look_up(values, item)[0]
    slope, intercept = real(film, "RescaleSlope"), real(film, "RescaleIntercept")
    return values * (1 if slope is None else slope) + (intercept or 0)


def _voi(film: "Dataset", levels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """0 to 1 by the first look-up table or window, None without either (PS3.3 C.11.2).

    Done here because pydicom 3.0's ``apply_voi`` wraps around in tables of 8 bits, and its
    ``apply_windowing`` turns a film to its negative where the rescale slope is negative.
    """
    item = item_of(film, "VOILUTSequence")
    if item is not None:
        grey, most = _look_up(levels, item)
        return grey / most
    center, width = real(film, "WindowCenter"), real(film, "WindowWidth")
    if center is None or width is None:
        return None
    function = film.get("VOILUTFunction") or "LINEAR"
    if function == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp(-4 * (levels - center) / width))
    if function == "LINEAR" and width >= 1:
        center, width = center - 0.5, width - 1
    elif function != "LINEAR_EXACT" or not width > 0:
        raise Rejected(Rejection.SHADING)
    if width == 0:
        return (levels > center).astype(np.float64)
    return np.clip((levels - center) / width + 0.5, 0, 1)


def _look_up(
    levels: npt.NDArray[np.float64], item: "Dataset"
) -> tuple[npt.NDArray[np.float64], int]:
    """Levels through a table, and the highest that such a table can hold (PS3.3 C.11.1.1)."""
    entries, first, bits = item.LUTDescriptor
    entries = entries % 2**16 or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        packed = bits == 8 and len(data) - entries in (0, 1)
        data = np.frombuffer(data, "u1" if packed else "<u2")
    table = np.atleast_1d(np.asarray(data, np.float64))[:entries]
    if table.size < entries or not 8 <= bits <= 16 or table.max() >= 2**bits:
        raise Rejected(Rejection.SHADING)
    index = np.clip(np.rint(levels) - first, 0, entries - 1).astype(np.intp)
    return table[index], 2**bits - 1
