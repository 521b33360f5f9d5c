"""Decodes the pixels of a DICOM file that is accepted."""

import io
import struct
from typing import TYPE_CHECKING, Any

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
    """Stored values: [Rows, Columns] of 8 or 16 bits, signed or not."""
    from PIL import Image
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder

    plugin = SYNTAXES[syntax]
    bits = film.BitsStored
    try:
        if plugin in ("pillow", "gdcm"):
            frame = get_frame(film.PixelData, 0, number_of_frames=1)
        if plugin == "gdcm":
            _check_frame(frame, film)
            # GDCM aborts at fewer than 8, and pydicom leaves what lies above those of JPEG-LS.
            bits = film.BitsAllocated
        elif plugin == "pillow":
            with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
                if image.size != (film.Columns, film.Rows):
                    raise ValueError("another size than the file says")
        stored, _ = get_decoder(syntax).as_array(
            film, index=0, raw=True, decoding_plugin=plugin, bits_stored=bits
        )
        unused = bits - film.BitsStored
        if unused:
            stored = stored << unused >> unused
    except MemoryError:
        raise
    except Exception as error:
        raise Rejected(Rejection.PIXELS) from error
    return stored


def _check_frame(frame: bytes, film: "Dataset") -> None:
    """Raise where a frame of JPEG Lossless or JPEG-LS is not what the file says.

    GDCM goes by the frame to another size, to colour and, above 16 bits, out of bounds; and it
    aborts where anything lies between segments.
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
    if size != [film.Rows, film.Columns, 1] or not 2 <= bits <= film.BitsAllocated:
        raise ValueError("another size than the file says")
    # Else what pads the frame is decoded, in place of what was cut off.
    if not frame.rstrip(b"\0").endswith(_END):
        raise ValueError("no end")
