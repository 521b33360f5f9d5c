"""From the bytes of an image, whatever its format, to what a network sees."""

import importlib.util
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_serving.images.dicom import DicomReader, DicomUnavailable, is_dicom
from cxr_serving.model.preprocessing import (
    MAX_PIXELS,
    Preprocessing,
    UndecodableImage,
    UnsupportedImage,
)

# What decoding one DICOM file may take in its own process.
_DICOM_SECONDS = 20.0
_DICOM_BYTES = 2**30
_NOT_INSTALLED = (
    "DICOM is not read here: the extra `dicom` is not installed; "
    "install it with pip install 'cxr-retraining[dicom]'"
)


class ImageReader:
    """Reads JPEG and PNG here, and DICOM in a process of limited means."""

    def __init__(self) -> None:
        Image.preinit()  # else the first image waits for Pillow's plugins
        self._dicom = (
            DicomReader(MAX_PIXELS, _DICOM_SECONDS, _DICOM_BYTES)
            if all(importlib.util.find_spec(name) for name in ("pydicom", "gdcm"))
            else None
        )

    @property
    def dicom_problem(self) -> str | None:
        """Why DICOM is not read at the moment, None where it is."""
        return _NOT_INSTALLED if self._dicom is None else self._dicom.problem

    def start(self) -> None:
        """Start the process, where DICOM is installed; ``dicom_problem`` says whether it did."""
        if self._dicom is not None:
            with suppress(DicomUnavailable):
                self._dicom.start()

    def read(self, image: bytes, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
        """Decode an image for a network.

        Args:
            image: a JPEG, PNG or DICOM file.
            preprocessing: of the network.

        Returns:
            uint8 [size, size], grey.

        Raises:
            ImageError: it cannot be used; the message says why.
        """
        if not image:
            raise UndecodableImage("the file is empty")
        if not is_dicom(image):
            return preprocessing.decode(image)
        if self._dicom is None:
            raise UnsupportedImage(_NOT_INSTALLED)
        return preprocessing.resize(self._dicom.read(image))

    def close(self) -> None:
        """End the process."""
        if self._dicom is not None:
            self._dicom.close()
