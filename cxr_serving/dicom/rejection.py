"""What is not read, and all that is ever said about it."""

from enum import Enum

from cxr_serving.preprocessing import FilmError, FilmTooLarge, UndecodableFilm, UnsupportedFilm

# Projection radiography, which chest radiographs are labelled with: computed and digital, spot
# images of fluoroscopy, digitised film, and DR, which is no term of the standard but what some
# devices write. XA, MG, PX and IO are projections of something else; CT, MR, US and SR are no
# radiographs at all.
MODALITIES = ("CR", "DX", "DR", "RF", "RG")


class Rejection(Enum):
    """Why a file is not read, in all the words that are ever said about one."""

    NO_IMAGE = (
        UnsupportedFilm,
        "the DICOM file holds no image: it is a DICOMDIR, a structured report or the like; send "
        "the file of the image itself",
    )
    SYNTAX = (
        UnsupportedFilm,
        "the DICOM file's transfer syntax is not read; save it as Implicit or Explicit VR Little "
        "Endian, RLE Lossless, JPEG, JPEG Lossless, JPEG-LS or JPEG 2000",
    )
    MODALITY = (
        UnsupportedFilm,
        f"the DICOM file is not a radiograph: Modality must be one of {', '.join(MODALITIES)}",
    )
    INTENT = (
        UnsupportedFilm,
        "the DICOM file holds raw detector values; send the image that is FOR PRESENTATION",
    )
    FRAMES = UnsupportedFilm, "the DICOM file has several frames; send one image"
    PALETTE = (
        UnsupportedFilm,
        "the DICOM image has the colours of a palette; save it in grey, as MONOCHROME2",
    )
    COLOUR = (
        UnsupportedFilm,
        "the DICOM image is not grey: Photometric Interpretation must be MONOCHROME1 or "
        "MONOCHROME2, with one sample per pixel",
    )
    BITS = (
        UnsupportedFilm,
        "the DICOM file's pixels are not read: Bits Allocated must be 8 or 16, and hold Bits "
        "Stored of them up to High Bit",
    )
    SHADING = (
        UndecodableFilm,
        "the DICOM image cannot be shown: its rescaled values are not finite",
    )
    BLANK = (
        UndecodableFilm,
        "the DICOM image is blank: by its window or look-up table, or without one, all pixels are "
        "shown in the same grey",
    )
    ELEMENTS = UndecodableFilm, "the DICOM file has too many or too large elements for a radiograph"
    BROKEN = UndecodableFilm, "the DICOM file is broken, or its sequences are nested too deeply"
    # pydicom does not say which: it makes one error of all that goes wrong in a decoder.
    PIXELS = (
        UndecodableFilm,
        "the pixels of the DICOM image are missing, truncated or broken, or take too much memory",
    )
    AREA = FilmTooLarge, "the DICOM image has more than {max_pixels:,} pixels, the most decoded"
    MEMORY = FilmTooLarge, "the DICOM image needs more memory than one image is given"
    LATE = UndecodableFilm, "the DICOM image took longer than {seconds:g} s to read"
    STOPPED = UndecodableFilm, "the DICOM image could not be read: its decoder stopped"


REJECTIONS = tuple(Rejection)


class Rejected(Exception):
    """A file is not read, in the child."""

    def __init__(self, rejection: Rejection) -> None:
        self.rejection = rejection


class DicomUnavailable(FilmError):
    """DICOM cannot be decoded at all: a fault of the installation or the machine, of no file."""
