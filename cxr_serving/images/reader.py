"""From the bytes of a JPEG, PNG or DICOM file to the input of a network."""

import importlib.util
from contextlib import suppress

from PIL import Image

from cxr_serving.images.container import Header
from cxr_serving.images.dicom import DicomReader, DicomUnavailable, is_dicom
from cxr_serving.model.preprocessing import (
    MAX_PIXELS,
    Decoded,
    Preprocessing,
    UndecodableImage,
    UnsupportedImage,
    header,
)

# Limits for decoding one DICOM file in its own process.
_DICOM_SECONDS = 20.0
_DICOM_BYTES = 2**30
_NOT_INSTALLED = (
    "DICOM is not read here, because the extra `dicom` is not installed: "
    "install it with pip install 'cxr-retraining[dicom]'"
)


class ImageReader:
    """Reads JPEG and PNG in this process, and DICOM in a child process with few rights."""

    def __init__(self) -> None:
        Image.preinit()  # otherwise the first image waits for Pillow's plugins
        self._dicom = (
            DicomReader(MAX_PIXELS, _DICOM_SECONDS, _DICOM_BYTES)
            if all(importlib.util.find_spec(name) for name in ("pydicom", "gdcm"))
            else None
        )

    @property
    def dicom_problem(self) -> str | None:
        """Why DICOM is not read at the moment; None where it is."""
        return _NOT_INSTALLED if self._dicom is None else self._dicom.problem

    def try_dicom(self) -> None:
        """Start the child process once if DICOM is installed; see ``dicom_problem``."""
        if self._dicom is not None:
            with suppress(DicomUnavailable):
                self._dicom.try_out()

    def read(self, image: bytes, preprocessing: Preprocessing) -> Decoded:
        """Decode an image for a network.

        Args:
            image: a JPEG, PNG or DICOM file.
            preprocessing: of the network.

        Raises:
            ImageError: it cannot be used; the message says why.
        """
        if not image:
            raise UndecodableImage("the file is empty")
        if not is_dicom(image):
            return preprocessing.decode(image)
        if self._dicom is None:
            raise UnsupportedImage(_NOT_INSTALLED)
        return Decoded(preprocessing.resize(self._dicom.read(image)), 0.0)

    def header(self, image: bytes) -> Header:
        """Size and bits of an image, read without decoding a pixel.

        Raises:
            ImageError: it cannot be used, as far as its header says; the message says why.
        """
        if not is_dicom(image):
            found = header(image)
            return Header(found.width, found.height, found.bits)
        if self._dicom is None:
            raise UnsupportedImage(_NOT_INSTALLED)
        return self._dicom.header(image)

    def close(self) -> None:
        """End the child process."""
        if self._dicom is not None:
            self._dicom.close()
