"""What is not read, and all that is ever said about it."""

from enum import Enum

from cxr_serving.preprocessing import FilmTooLarge, UndecodableFilm, UnsupportedFilm

# Projection radiography, which chest films are labelled with: computed and digital, spot films of
# fluoroscopy, digitised film, and DR, which is no term of the standard but what some devices write.
# XA, MG, PX and IO are projections of something else; CT, MR, US and SR are no radiographs at all.
MODALITIES = ("CR", "DX", "DR", "RF", "RG")


class Rejection(Enum):
    """Why a film is not read, in all the words that are ever said about one."""

    PREAMBLE = (
        UnsupportedFilm,
        "the DICOM file begins as a file of another format; its first 128 bytes must be zero",
    )
    SYNTAX = (
        UnsupportedFilm,
        "the DICOM file's transfer syntax is not read; save it as Implicit or Explicit VR Little "
        "Endian, RLE Lossless, JPEG Baseline, JPEG Lossless, JPEG-LS or JPEG 2000",
    )
    MODALITY = (
        UnsupportedFilm,
        f"the DICOM file is not a radiograph: Modality must be one of {', '.join(MODALITIES)}",
    )
    INTENT = (
        UnsupportedFilm,
        "the DICOM file holds raw detector values; send the image that is FOR PRESENTATION",
    )
    FRAMES = UnsupportedFilm, "the DICOM file has several frames; send one film"
    COLOUR = (
        UnsupportedFilm,
        "the DICOM file is not a grey film: Photometric Interpretation must be MONOCHROME1 or "
        "MONOCHROME2, with one sample per pixel",
    )
    POLARITY = (
        UnsupportedFilm,
        "the DICOM file contradicts itself: Photometric Interpretation and Presentation LUT Shape "
        "do not agree on what is white",
    )
    BITS = (
        UnsupportedFilm,
        "the DICOM file's pixels are not read: Bits Allocated must be 8 or 16, and the lowest Bits "
        "Stored of them used",
    )
    SHADING = (
        UndecodableFilm,
        "the DICOM film cannot be shown: its rescale, window or look-up table is not valid",
    )
    BLANK = UndecodableFilm, "the DICOM film is blank: all pixels are shown in the same grey"
    ELEMENTS = UndecodableFilm, "the DICOM file has too many or too large elements for a radiograph"
    BROKEN = UndecodableFilm, "the DICOM file is broken, or its sequences are nested too deeply"
    # pydicom does not say which: it makes one error of all that goes wrong in a decoder.
    PIXELS = (
        UndecodableFilm,
        "the pixels of the DICOM film are missing, truncated or broken, or take too much memory",
    )
    AREA = FilmTooLarge, "the DICOM film has more than {max_pixels:,} pixels, the most decoded"
    MEMORY = FilmTooLarge, "the DICOM film needs more memory than one film is given"
    LATE = UndecodableFilm, "the DICOM film took longer than {seconds:g} s to read"
    STOPPED = UndecodableFilm, "the DICOM film could not be read: its decoder stopped"


REJECTIONS = tuple(Rejection)


class Rejected(Exception):
    def __init__(self, refusal: Rejection) -> None:
        self.refusal = refusal
