"""Why a DICOM file is rejected, and the messages that say so."""

from enum import Enum

from cxr_serving.model.preprocessing import (
    ImageError,
    ImageTooLarge,
    UndecodableImage,
    UnsupportedImage,
)

# Projection radiography, the modalities of chest radiographs: computed and digital radiography,
# spot images of fluoroscopy, digitised radiographs, and DR, which some devices write although
# the standard does not define it. XA, MG, PX and IO are projections of something else; CT, MR, US
# and SR are no radiographs.
MODALITIES = ("CR", "DX", "DR", "RF", "RG")


class Rejection(Enum):
    """Why a file is rejected: the error to raise, and its message, which quotes no file."""

    NO_IMAGE = (
        UnsupportedImage,
        "the DICOM file holds no image: it is a DICOMDIR, a structured report or the like; send "
        "the file of the image itself",
    )
    SYNTAX = (
        UnsupportedImage,
        "the DICOM file's transfer syntax is not read; save it as Implicit or Explicit VR Little "
        "Endian, RLE Lossless, JPEG, JPEG Lossless, JPEG-LS or JPEG 2000",
    )
    MODALITY = (
        UnsupportedImage,
        f"the DICOM file is not a radiograph: Modality must be one of {', '.join(MODALITIES)}",
    )
    INTENT = (
        UnsupportedImage,
        "the DICOM file holds raw detector values; send the image that is FOR PRESENTATION",
    )
    FRAMES = UnsupportedImage, "the DICOM file has several frames; send one image"
    PALETTE = (
        UnsupportedImage,
        "the DICOM image has the colours of a palette; save it in grey, as MONOCHROME2",
    )
    COLOUR = (
        UnsupportedImage,
        "the DICOM image is not grey: Photometric Interpretation must be MONOCHROME1 or "
        "MONOCHROME2, with one sample per pixel",
    )
    BITS = (
        UnsupportedImage,
        "the DICOM file's pixels are not read: Bits Allocated must be 8 or 16, and hold Bits "
        "Stored of them up to High Bit",
    )
    SHADING = (
        UndecodableImage,
        "the DICOM image cannot be shown: its rescaled values are not finite",
    )
    BLANK = (
        UndecodableImage,
        "the DICOM image is blank: by its window or look-up table, or without one, all pixels are "
        "shown in the same grey",
    )
    ELEMENTS = (
        UndecodableImage,
        "the DICOM file has too many or too large elements for a radiograph",
    )
    BROKEN = UndecodableImage, "the DICOM file is broken, or its sequences are nested too deeply"
    # pydicom does not say which: it raises one error for all failures of a decoder.
    PIXELS = (
        UndecodableImage,
        "the pixels of the DICOM image are missing, truncated or broken, or take too much memory",
    )
    AREA = ImageTooLarge, "the DICOM image has more than {max_pixels:,} pixels, the most decoded"
    MEMORY = ImageTooLarge, "the DICOM image needs more memory than one image is given"
    LATE = UndecodableImage, "the DICOM image took longer than {seconds:g} s to read"
    STOPPED = UndecodableImage, "the DICOM image could not be read: its decoder stopped"


REJECTIONS = tuple(Rejection)


class Rejected(Exception):
    """A file is rejected; raised in the child."""

    def __init__(self, rejection: Rejection) -> None:
        self.rejection = rejection


class DicomUnavailable(ImageError):
    """DICOM cannot be decoded at all: the installation or the machine is at fault, not the file."""
