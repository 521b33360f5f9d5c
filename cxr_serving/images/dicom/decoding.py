"""Decodes the pixels of an accepted DICOM file."""

import io
import struct
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cxr_serving.images.dicom.rejection import Rejected, Rejection

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Second bytes of JPEG markers: the start of a frame of JPEG Extended, or of JPEG Lossless and
# JPEG-LS; other segments that a decoder needs before the scan: tables, restart interval and LS
# parameters; and those that grey pixels do not need: application segments and comments.
_LOSSY, _LOSSLESS = (0xC0, 0xC1), (0xC3, 0xF7)
_NEEDED = (0xC4, 0xDB, 0xDD, 0xF8)
_UNNEEDED = (*range(0xE0, 0xF0), 0xFE)
_SCAN, _TILE, _END = b"\xff\xda", b"\xff\x90", b"\xff\xd9"
# Precision, height, width and number of components, then the only component.
_FRAME = struct.Struct(">BHHB3x")
_JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"


def decode(dataset: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """Stored values: [Rows, Columns] of 8 or 16 bits, signed or not.

    Raises:
        Rejected: the pixels are missing, truncated or broken.
    """
    try:
        return _DECODERS[syntax](dataset, syntax)
    except MemoryError:
        raise
    except Exception as error:
        raise Rejected(Rejection.PIXELS) from error


def _native(dataset: "Dataset", syntax: str) -> npt.NDArray[Any]:
    if dataset["PixelData"].is_undefined_length:
        raise ValueError("compressed, whatever the transfer syntax says")
    return _used(_by_pydicom(dataset, syntax, ""), dataset.BitsStored, dataset.HighBit)


def _rle(dataset: "Dataset", syntax: str) -> npt.NDArray[Any]:
    return _used(_by_pydicom(dataset, syntax, "pydicom"), dataset.BitsStored, dataset.HighBit)


def _jpeg_baseline(dataset: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """JPEG with 8 bits, whatever Bits Allocated and Bits Stored say."""
    from PIL import Image

    with Image.open(io.BytesIO(_frame(dataset)), formats=("JPEG",)) as image:
        if image.size != (dataset.Columns, dataset.Rows) or image.mode != "L":
            raise ValueError("another size than the file says, or colour")
        stored = np.array(image)
    return stored.view(np.int8) if dataset.PixelRepresentation else stored


def _jpeg_extended(dataset: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """JPEG with 12 bits, which Pillow does not read, or with 8."""
    frame, bits = _whole(_frame(dataset), dataset, _LOSSY)
    if bits == 8:
        return _jpeg_baseline(dataset, syntax)
    # Lossy values may lie a little above the bits that the file says are stored. GDCM goes by the
    # frame, and pydicom asks it for 12 bits under another name only.
    return _by_gdcm(dataset, _JPEG_LOSSLESS, frame, bits, stored=bits)


def _jpeg_lossless(dataset: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """JPEG Lossless and JPEG-LS."""
    frame, bits = _whole(_frame(dataset), dataset, _LOSSLESS)
    # With more bits than are allocated, the elements of the file are wrong.
    stored = dataset.BitsStored if bits <= dataset.BitsAllocated else bits
    return _by_gdcm(dataset, syntax, frame, bits, stored)


def _jpeg_2000(dataset: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """JPEG 2000, with the depth and sign of the frame, whatever the elements of the file say."""
    from PIL import Image
    from pydicom.pixels.utils import get_j2k_parameters

    frame = _tiles(_frame(dataset))
    with Image.open(io.BytesIO(frame), formats=("JPEG2000",)) as image:
        if image.size != (dataset.Columns, dataset.Rows) or image.mode not in ("L", "I;16"):
            raise ValueError("another size than the file says, or colour")
        stored = np.array(image)
    size, parameters = 8 * stored.itemsize, get_j2k_parameters(frame)
    # Pillow shifts samples to the top of 8 or 16 bits, and adds half the range to signed ones.
    if parameters["is_signed"]:
        stored ^= stored.dtype.type(2 ** (size - 1))
    if parameters["is_signed"] or dataset.PixelRepresentation:
        stored = stored.view(f"i{stored.itemsize}")
    shifted: npt.NDArray[Any] = stored >> (size - int(parameters["precision"]))
    return shifted


_DECODERS: Mapping[str, Callable[["Dataset", str], npt.NDArray[Any]]] = {
    "1.2.840.10008.1.2": _native,  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1": _native,  # Explicit VR Little Endian
    "1.2.840.10008.1.2.2": _native,  # Explicit VR Big Endian, retired
    "1.2.840.10008.1.2.5": _rle,  # RLE Lossless
    "1.2.840.10008.1.2.4.50": _jpeg_baseline,  # JPEG Baseline, 8 bits
    "1.2.840.10008.1.2.4.51": _jpeg_extended,  # JPEG Extended, 12 bits
    _JPEG_LOSSLESS: _jpeg_lossless,  # JPEG Lossless
    "1.2.840.10008.1.2.4.70": _jpeg_lossless,  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": _jpeg_lossless,  # JPEG-LS, lossless only
    "1.2.840.10008.1.2.4.81": _jpeg_lossless,  # JPEG-LS
    "1.2.840.10008.1.2.4.90": _jpeg_2000,  # JPEG 2000, lossless only
    "1.2.840.10008.1.2.4.91": _jpeg_2000,  # JPEG 2000
}
# Decoded by pydicom (MIT), Pillow (MIT-CMU) and GDCM (BSD-3).
SYNTAXES = frozenset(_DECODERS)


def _by_gdcm(
    dataset: "Dataset", syntax: str, frame: bytes, bits: int, stored: int
) -> npt.NDArray[Any]:
    """A frame of ``bits`` bits, of which at most ``stored`` belong to the image."""
    from pydicom.encaps import encapsulate

    dataset.BitsAllocated = 8 if bits <= 8 else 16
    stored = min(stored, dataset.BitsAllocated)
    high = (
        min(dataset.HighBit, dataset.BitsAllocated - 1)
        if stored == dataset.BitsStored
        else stored - 1
    )
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return _used(_by_pydicom(dataset, syntax, "gdcm"), stored, high)


def _by_pydicom(dataset: "Dataset", syntax: str, plugin: str) -> npt.NDArray[Any]:
    from pydicom.pixels.decoders.base import get_decoder

    # All bits: pydicom leaves what lies above those stored, and GDCM aborts at fewer than 8.
    options: dict[str, Any] = {"decoding_plugin": plugin, "bits_stored": dataset.BitsAllocated}
    stored, _ = get_decoder(syntax).as_array(dataset, index=0, raw=True, **options)
    return stored


def _used(stored: npt.NDArray[Any], bits: int, high: int) -> npt.NDArray[Any]:
    """``bits`` bits from the high bit down: retired overlays may lie above, nothing below."""
    size = 8 * stored.itemsize
    used: npt.NDArray[Any] = stored << (size - 1 - high) >> (size - bits)
    return used if bits < size else stored


def _frame(dataset: "Dataset") -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def _tiles(frame: bytes) -> bytes:
    """A codestream of JPEG 2000 that ends with its last tile (ISO 15444-1 A.4.2).

    A tile whose length is left open (Psot is 0) ends with the frame, and the byte that pads this to
    an even length would be a part of it. Others pad by a comment behind the last tile, which
    OpenJPEG takes for damage.
    """
    end = frame.rfind(_END)
    if end < 0 or not frame.startswith(b"\xff\x4f"):
        return frame
    start = 2
    while frame[start : start + 2] != _TILE:
        length = int.from_bytes(frame[start + 2 : start + 4], "big")
        if frame[start : start + 1] != b"\xff" or length < 2:
            raise ValueError("no segment")
        start += 2 + length
    while frame[start : start + 2] == _TILE:
        length = int.from_bytes(frame[start + 6 : start + 10], "big")
        start = start + length if length else end
    return frame[: min(start, end)] + _END


def _whole(frame: bytes, dataset: "Dataset", kinds: Collection[int]) -> tuple[bytes, int]:
    """The part of a JPEG frame that its pixels need, and its depth in bits.

    GDCM follows a frame to another size, to colour and, above 16 bits, out of bounds; it aborts at
    bytes between segments and at unknown versions of JFIF, and decodes the padding of a truncated
    frame as pixels. Devices pad with zeros, FF, blanks or line feeds. No marker occurs within a
    scan, so the first end marker is the end of the image.

    Raises:
        ValueError: the frame contradicts the elements of the file, or is truncated.
    """
    start, header, needed = 2, b"", bytearray(frame[:2])
    while frame[start : start + 2] != _SCAN:
        if frame[start : start + 2] == b"\xff\xff":  # a marker may be preceded by any number of FF
            start += 1
            continue
        marker = frame[start + 1]
        if frame[start] != 0xFF or marker not in (*kinds, *_NEEDED, *_UNNEEDED):
            raise ValueError("no segment")
        end = start + 2 + int.from_bytes(frame[start + 2 : start + 4], "big")
        if marker in kinds:
            if header:
                raise ValueError("two frames")
            header = frame[start + 4 : end]
        if marker not in _UNNEEDED:
            needed += frame[start:end]
        start = end
    bits, *size = _FRAME.unpack(header)
    if size != [dataset.Rows, dataset.Columns, 1] or not 2 <= bits <= 16:
        raise ValueError("another size than the file says")
    end = frame.find(_END, start)
    if end < 0:
        raise ValueError("no end")
    return bytes(needed + frame[start : end + 2]), bits
