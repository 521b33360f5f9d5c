import sys
from collections.abc import Iterator

import dicoms
import numpy as np
import pytest
from pydicom.uid import RLELossless

from cxr_serving.images.reader import ImageReader
from cxr_serving.model.preprocessing import Preprocessing, UndecodableImage, UnsupportedImage

NETWORK = Preprocessing(32)


@pytest.fixture
def reader() -> Iterator[ImageReader]:
    reader = ImageReader()
    yield reader
    reader.close()


def test_each_format_becomes_an_image_of_the_network(reader: ImageReader, image: bytes) -> None:
    for file in (image, dicoms.cr()):
        pixels = reader.read(file, NETWORK).pixels
        assert (pixels.shape, pixels.dtype) == ((32, 32), np.uint8)
    assert reader.dicom_problem is None


def test_an_empty_file_is_rejected(reader: ImageReader) -> None:
    with pytest.raises(UndecodableImage, match="empty"):
        reader.read(b"", NETWORK)


def test_without_the_extra_dicom_is_rejected_and_the_rest_is_read(
    monkeypatch: pytest.MonkeyPatch, image: bytes
) -> None:
    monkeypatch.setitem(sys.modules, "gdcm", None)
    reader = ImageReader()
    reader.try_dicom()
    assert reader.read(image, NETWORK).pixels.shape == (32, 32)
    with pytest.raises(UnsupportedImage, match=r"pip install 'cxr-retraining\[dicom\]'"):
        reader.read(dicoms.cr(), NETWORK)
    assert "extra `dicom`" in str(reader.dicom_problem)


def test_headers_are_read_without_pixels(reader: ImageReader, image: bytes) -> None:
    pixels = dicoms.grey()
    assert reader.header(dicoms.dicom(pixels, BitsStored=12)) == (40, 30, 12)
    # The frame is broken, which only decoding shows.
    broken = dicoms.compressed(pixels, RLELossless, b"no frame")
    assert reader.header(broken) == (40, 30, 16)
    with pytest.raises(UndecodableImage):
        reader.read(broken, NETWORK)
    assert reader.header(image).bits == 8
    with pytest.raises(UnsupportedImage, match="not a radiograph"):
        reader.header(dicoms.dicom(pixels, Modality="CT"))
