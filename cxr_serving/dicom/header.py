"""The elements of a DICOM file that matter here, and whether such an image is accepted."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cxr_serving.dicom.rejection import MODALITIES, Rejected, Rejection

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MAGIC = slice(128, 132)

# Transfer syntaxes, each with the pydicom plugin that decodes it. All plugins are part of pydicom
# (MIT) or call Pillow (MIT-CMU) or GDCM (BSD-3). Left out: Deflated, which inflates before anything
# can be checked, and big endian, which is retired.
SYNTAXES: Mapping[str, str] = {
    "1.2.840.10008.1.2": "",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1": "",  # Explicit VR Little Endian
    "1.2.840.10008.1.2.5": "pydicom",  # RLE Lossless
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG Baseline, 8 bits
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "gdcm",  # JPEG-LS, lossless only
    "1.2.840.10008.1.2.4.81": "gdcm",  # JPEG-LS
    "1.2.840.10008.1.2.4.90": "pillow",  # JPEG 2000, lossless only
    "1.2.840.10008.1.2.4.91": "pillow",  # JPEG 2000
}
# The only elements that are kept when a file is parsed.
_KEYWORDS = (
    "Modality",
    "PresentationIntentType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "PixelData",
)
# Parsing an element takes one read to three; radiographs have a few hundred elements.
_READS = 15_000
# A whole look-up table of 16 bits takes 128 KiB, and a film may offer several.
_SEQUENCE_BYTES = 2**20


def is_dicom(data: bytes) -> bool:
    """Whether ``data`` begins as a DICOM file of part 10 of the standard does."""
    return data[_MAGIC] == b"DICM"


class _Reads(io.BytesIO):
    """A file that does not let itself be read in endlessly many small pieces."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _READS:
            raise Rejected(Rejection.ELEMENTS)
        return super().read(size)


def parse(data: bytes) -> tuple["Dataset", str]:
    """The elements of ``_KEYWORDS``, and the transfer syntax."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset

    if any(data[: _MAGIC.start]):
        raise Rejected(Rejection.PREAMBLE)
    stream = _Reads(data)
    stream.seek(_MAGIC.stop)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    syntax = str(meta.get("TransferSyntaxUID"))
    if syntax not in SYNTAXES:
        raise Rejected(Rejection.SYNTAX)
    tags = [tag for tag in map(tag_for_keyword, _KEYWORDS) if tag is not None]
    implicit = syntax == "1.2.840.10008.1.2"
    film = read_dataset(stream, implicit, True, specific_tags=[*tags])
    if not film:  # pydicom forgets what it has read when compressed pixels end before their time
        raise Rejected(Rejection.BROKEN)
    return film, syntax


def check(film: "Dataset", max_pixels: int) -> bool:
    """Whether low values are bright, of a film that is accepted."""
    if film.get("Modality") not in MODALITIES:
        raise Rejected(Rejection.MODALITY)
    if film.get("PresentationIntentType") == "FOR PROCESSING":
        raise Rejected(Rejection.INTENT)
    if integer(film, "NumberOfFrames", 1) != 1:
        raise Rejected(Rejection.FRAMES)
    photometric = film.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or integer(film, "SamplesPerPixel") != 1:
        raise Rejected(Rejection.COLOUR)
    inverse: bool = photometric == "MONOCHROME1"
    # PS3.3 C.8.11.3: INVERSE goes with MONOCHROME1, which is inverted once, not twice.
    if film.get("PresentationLUTShape") not in (None, "", "INVERSE" if inverse else "IDENTITY"):
        raise Rejected(Rejection.POLARITY)
    allocated, used = integer(film, "BitsAllocated"), integer(film, "BitsStored")
    if (
        allocated not in (8, 16)
        or not 1 <= used <= allocated
        or integer(film, "HighBit", used - 1) != used - 1
    ):
        raise Rejected(Rejection.BITS)
    rows, columns = integer(film, "Rows"), integer(film, "Columns")
    if rows * columns > max_pixels:
        raise Rejected(Rejection.AREA)
    return inverse


def item_of(film: "Dataset", keyword: str) -> "Dataset | None":
    """The first item of a sequence."""
    from pydicom.tag import Tag

    if keyword not in film:
        return None
    raw = film.get_item(Tag(keyword)).value
    if isinstance(raw, bytes) and len(raw) > _SEQUENCE_BYTES:
        raise Rejected(Rejection.ELEMENTS)
    items = film[keyword].value
    return items[0] if items else None


def integer(film: "Dataset", keyword: str, default: int | None = None) -> int:
    value = film.get(keyword)
    if value is None:
        value = default
    if not isinstance(value, int):
        raise Rejected(Rejection.BROKEN)
    return value


def real(film: "Dataset", keyword: str) -> float | None:
    """A finite number, the first where there are several; None where there is none."""
    value = film.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0]
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise Rejected(Rejection.SHADING)
    return number
