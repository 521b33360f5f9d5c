"""From a source image to a grey PNG of the processed dataset, read as the service reads images."""

import threading
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from PIL import Image

from cxr_assets.provenance import code_version
from cxr_serving.images.dicom import is_dicom
from cxr_serving.images.reader import ImageReader
from cxr_serving.model.preprocessing import ImageError, Preprocessing


class DecodingError(Exception):
    """No image of this kind can be decoded now, or it is another file than was checked."""


class Written(NamedTuple):
    """What became of an image: either a reason, or the others.

    Attributes:
        pixels: sha256 of the grey levels, row by row, hexadecimal.
        colour: of the file (:class:`cxr_serving.model.preprocessing.Decoded`); its PNG is grey.
        reason: why the image is left out.
    """

    pixels: str | None = None
    colour: float | None = None
    reason: str | None = None


def version() -> str:
    """Digest of all code that decides the pixels of a PNG, hexadecimal."""
    return code_version(__name__)


class Decoder:
    """Decodes images in any number of threads, each with a reader of its own.

    Args:
        size: side of the square PNGs, in pixels.
    """

    def __init__(self, size: int) -> None:
        self._preprocessing = Preprocessing(size)
        self._own = threading.local()
        self._readers: list[ImageReader] = []

    def write(self, source: Path, expected: str, target: Path) -> Written:
        """Write the PNG of an image.

        Args:
            source: a JPEG, PNG or DICOM file.
            expected: its sha256, hexadecimal.
            target: the PNG.

        Raises:
            DecodingError: the file has changed, or DICOM is not read on this machine.
        """
        try:
            content = source.read_bytes()
        except OSError as error:
            return Written(reason=f"corrupt: the file cannot be read: {error.strerror}")
        if sha256(content).hexdigest() != expected:
            raise DecodingError(
                f"{source} has changed since raw_kaggle checked it: materialise raw_kaggle again"
            )
        reader = self._reader()
        try:
            pixels, colour = reader.read(content, self._preprocessing)
        except ImageError as error:
            # Otherwise the dataset would lack images that are not at fault.
            if is_dicom(content) and reader.dicom_problem is not None:
                raise DecodingError(f"{source}: {reader.dicom_problem}") from error
            return Written(reason=f"corrupt: {error}")
        # Level 6 takes three times as long and makes files a tenth smaller.
        Image.fromarray(pixels).save(target, "PNG", compress_level=1)
        return Written(pixels=sha256(pixels.tobytes()).hexdigest(), colour=round(colour, 4))

    def _reader(self) -> ImageReader:
        """That of this thread; its process for DICOM starts with the first DICOM file."""
        if not hasattr(self._own, "reader"):
            self._own.reader = ImageReader()
            self._readers.append(self._own.reader)
        reader: ImageReader = self._own.reader
        return reader

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for reader in self._readers:
            reader.close()
