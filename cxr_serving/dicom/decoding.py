"""Decodes the pixels of a DICOM file that is accepted."""

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cxr_serving.dicom.header import SYNTAXES
from cxr_serving.dicom.rejection import Rejected, Rejection

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Second bytes of the markers of JPEG Lossless and JPEG-LS: what begins a frame, and what else may
# come before its scan, tables, restart interval, applications' own, comment and LS parameters.
_FRAMES = (0xC3, 0xF7)
_SEGMENTS = (*_FRAMES, 0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE, 0xF8)
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# Precision, height, width and number of components, then the only component.
_FRAME = struct.Struct(">BHHB3x")


def decode(film: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """Stored values: [Rows, Columns] of 8 or 16 bits, signed or not.

    Raises:
        Rejected: there are no such pixels.
    """
    try:
        return _DECODERS[SYNTAXES[syntax]](film, syntax)
    except MemoryError:
        raise
    except Exception as error:
        raise Rejected(Rejection.PIXELS) from error


def _native(film: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """Uncompressed, or RLE."""
    return _used(_by_pydicom(film, syntax, SYNTAXES[syntax], film.BitsAllocated), film)


def _baseline(film: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """JPEG with 8 bits, whatever the file says that it allocates and stores."""
    from PIL import Image

    with Image.open(io.BytesIO(_frame(film)), formats=("JPEG",)) as image:
        if image.size != (film.Columns, film.Rows) or image.mode != "L":
            raise ValueError("another size than the file says, or colour")
        stored = np.array(image)
    return stored.view(np.int8) if film.PixelRepresentation else stored


def _jpeg_2000(film: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """JPEG 2000, with the bits and the sign that the frame has, whatever the file says."""
    from PIL import Image
    from pydicom.pixels.utils import get_j2k_parameters

    frame = _frame(film)
    # A tile whose length is left open (Psot is 0) ends with the frame, and the byte that pads this
    # to an even length would be a part of it.
    end = frame.rfind(_END)
    frame = frame[: end + 2] if end >= 0 else frame
    with Image.open(io.BytesIO(frame), formats=("JPEG2000",)) as image:
        if image.size != (film.Columns, film.Rows) or image.mode not in ("L", "I;16"):
            raise ValueError("another size than the file says, or colour")
        stored = np.array(image)
    size, parameters = 8 * stored.itemsize, get_j2k_parameters(frame)
    # Pillow fills its 8 or 16 bits from above, and adds half their range to signed values.
    unused = size - int(parameters["precision"])
    if parameters["is_signed"]:
        return (stored ^ stored.dtype.type(2 ** (size - 1))).view(f"i{stored.itemsize}") >> unused
    if film.PixelRepresentation:  # the bits of signed values, kept as if they were not
        return stored.view(f"i{stored.itemsize}") >> unused
    return stored >> unused


def _lossless(film: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """JPEG Lossless and JPEG-LS."""
    frame, bits = _whole(_frame(film), film)
    if bits > film.BitsAllocated:  # nothing but the image can lie in them
        film.BitsStored = film.HighBit = bits
        film.HighBit -= 1
    film.BitsAllocated = 8 if bits <= 8 else 16
    film.BitsStored = min(film.BitsStored, film.BitsAllocated)
    film.HighBit = min(film.HighBit, film.BitsAllocated - 1)
    _replace(film, frame)
    # GDCM aborts at fewer than 8, and pydicom leaves what lies above those of JPEG-LS.
    return _used(_by_pydicom(film, syntax, "gdcm", film.BitsAllocated), film)


_DECODERS = {
    "": _native,
    "pydicom": _native,
    "pillow": _baseline,
    "openjpeg": _jpeg_2000,
    "gdcm": _lossless,
}


def _by_pydicom(film: "Dataset", syntax: str, plugin: str, bits: int) -> npt.NDArray[Any]:
    from pydicom.pixels.decoders.base import get_decoder

    options: dict[str, Any] = {"decoding_plugin": plugin, "bits_stored": bits}
    stored, _ = get_decoder(syntax).as_array(film, index=0, raw=True, **options)
    return stored


def _used(stored: npt.NDArray[Any], film: "Dataset") -> npt.NDArray[Any]:
    """What lies from the high bit down: overlays of old may lie above it, and nothing below."""
    size = 8 * stored.itemsize
    if film.BitsStored == size:
        return stored
    used: npt.NDArray[Any] = stored << (size - 1 - film.HighBit) >> (size - film.BitsStored)
    return used


def _frame(film: "Dataset") -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(film.PixelData, 0, number_of_frames=1)


def _replace(film: "Dataset", frame: bytes) -> None:
    from pydicom.encaps import encapsulate

    film.PixelData = encapsulate([frame])
    film["PixelData"].is_undefined_length = True


def _whole(frame: bytes, film: "Dataset") -> tuple[bytes, int]:
    """A frame of JPEG Lossless or JPEG-LS without what pads it, and its bits.

    GDCM goes by the frame to another size, to colour and, above 16 bits, out of bounds; it aborts
    where anything lies between segments, and it decodes what pads a frame in place of what was cut
    off. Devices pad with zeros, FF, blanks or line feeds; no marker occurs within a scan, so that
    the first one that ends the image is its end.

    Raises:
        ValueError: the frame is not what the file says, or not whole.
    """
    start, header = 2, b""
    while frame[start : start + 2] != _SCAN:
        if frame[start] != 0xFF or frame[start + 1] not in _SEGMENTS:
            raise ValueError("no segment")
        end = start + 2 + int.from_bytes(frame[start + 2 : start + 4], "big")
        if frame[start + 1] in _FRAMES:
            header += frame[start + 4 : end]
        start = end
    bits, *size = _FRAME.unpack(header)
    if size != [film.Rows, film.Columns, 1] or not 2 <= bits <= 16:
        raise ValueError("another size than the file says")
    end = frame.find(_END, start)
    if end < 0:
        raise ValueError("no end")
    return frame[: end + 2], bits
