"""Parses the elements of a DICOM file that matter here, and checks that the image is accepted."""

import io
import zlib
from typing import TYPE_CHECKING

from cxr_serving.images.dicom.decoding import SYNTAXES
from cxr_serving.images.dicom.elements import integer, word
from cxr_serving.images.dicom.recognition import elements_at
from cxr_serving.images.dicom.rejection import MODALITIES, Rejected, Rejection

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_DICOMDIR = "1.2.840.10008.1.3.10"
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
# Parsing an element takes one to three reads; radiographs have a few hundred elements.
_READS = 15_000
# Largest inflated size: twice the largest image with 16 bits.
_INFLATED_BYTES = 2**27


class _Reads(io.BytesIO):
    """A file that rejects being read in too many small pieces."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _READS:
            raise Rejected(Rejection.ELEMENTS)
        return super().read(size)


def parse(data: bytes) -> tuple["Dataset", str]:
    """The elements of ``_KEYWORDS``, and the transfer syntax.

    Raises:
        Rejected: the file is a DICOMDIR, too large, or its transfer syntax is not read.
    """
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset

    stream = _Reads(data)
    stream.seek(elements_at(data) or 0)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if str(meta.get("MediaStorageSOPClassUID")) == _DICOMDIR:
        raise Rejected(Rejection.NO_IMAGE)
    # Without meta information, pydicom recognises implicit or explicit by the first element.
    syntax = str(meta.get("TransferSyntaxUID") or _IMPLICIT)
    if syntax == _DEFLATED:
        stream, syntax = _Reads(_inflated(data[stream.tell() :])), _EXPLICIT
    if syntax not in SYNTAXES:
        raise Rejected(Rejection.SYNTAX)
    tags = [tag for tag in map(tag_for_keyword, _KEYWORDS) if tag is not None]
    dataset = read_dataset(
        stream, syntax == _IMPLICIT, syntax != _BIG_ENDIAN, specific_tags=[*tags]
    )
    if not dataset:  # pydicom returns nothing when compressed pixels are truncated
        raise Rejected(Rejection.BROKEN)
    return dataset, syntax


def check(dataset: "Dataset", max_pixels: int) -> bool:
    """Check that an image is accepted, and return whether its low values are bright.

    Elements that decoders need are replaced by one valid value each.

    Raises:
        Rejected: it is not accepted.
    """
    modality = word(dataset, "Modality")
    if "PixelData" not in dataset:
        raise Rejected(Rejection.PIXELS if modality in MODALITIES else Rejection.NO_IMAGE)
    if modality not in MODALITIES:
        raise Rejected(Rejection.MODALITY)
    if word(dataset, "PresentationIntentType") == "FOR PROCESSING":
        raise Rejected(Rejection.INTENT)
    if integer(dataset, "NumberOfFrames", 1) > 1:
        raise Rejected(Rejection.FRAMES)
    photometric = word(dataset, "PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        raise Rejected(Rejection.PALETTE)
    if not photometric.startswith("MONOCHROME") or integer(dataset, "SamplesPerPixel", 1) != 1:
        raise Rejected(Rejection.COLOUR)
    allocated = integer(dataset, "BitsAllocated")
    used = integer(dataset, "BitsStored", allocated)
    high = integer(dataset, "HighBit", used - 1)
    if allocated not in (8, 16) or not 1 <= used <= high + 1 <= allocated:
        raise Rejected(Rejection.BITS)
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    if rows * columns > max_pixels:
        raise Rejected(Rejection.AREA)
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames, dataset.SamplesPerPixel = (
        rows,
        columns,
        1,
        1,
    )
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, used, high
    dataset.PixelRepresentation = integer(dataset, "PixelRepresentation", 0)
    dataset.PhotometricInterpretation = "MONOCHROME2"
    # By PS3.3 C.8.11.3 both agree. Where they do not, viewers follow the shape.
    shape = word(dataset, "PresentationLUTShape")
    return shape == "INVERSE" if shape in ("IDENTITY", "INVERSE") else photometric == "MONOCHROME1"


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(data, _INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise Rejected(Rejection.ELEMENTS)
    if not inflater.eof:
        raise Rejected(Rejection.BROKEN)
    return inflated
