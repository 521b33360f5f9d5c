"""Elements as devices write them, and which images are accepted."""

import dicoms
import numpy as np
import pytest
from dicoms import (
    BYTES,
    GREY,
    HEIGHT,
    WIDTH,
    cr,
    dicom,
    grey,
    shown,
    stretched,
)
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxr_serving.images.dicom import DicomReader

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, in what it is given


@pytest.mark.parametrize("modality", ["CR", "DX", "DR", "RF", "RG"])
def test_radiographs_are_accepted(reader: DicomReader, modality: str) -> None:
    data = dicom(grey(), Modality=modality, NumberOfFrames=1, RescaleSlope=1, RescaleIntercept=0)
    assert reader.read(data).shape == (HEIGHT, WIDTH)


def test_meta_information_may_name_no_transfer_syntax() -> None:
    dataset = dicoms.dataset(GREY, BitsStored=12)
    plain = dicoms.encode(dataset)
    unnamed = plain.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI")
    assert np.array_equal(shown(unnamed), shown(plain))


def test_explicit_elements_are_read_where_the_header_says_implicit_ones() -> None:
    said, meant = ExplicitVRLittleEndian.encode() + b"\0", ImplicitVRLittleEndian.encode()
    data = cr().replace(said, meant.ljust(len(said), b"\0"))
    assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("pixels", [GREY, BYTES])
def test_deflated_and_big_endian_files_are_read(pixels: np.ndarray, syntax: UID) -> None:
    dataset = dicoms.dataset(pixels)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    assert np.array_equal(shown(dicoms.encode(dataset, syntax)), stretched(pixels))


WINDOW = {"WindowCenter": 2000, "WindowWidth": 3000}


@pytest.mark.parametrize("elements", [{"RescaleSlope": 0, "RescaleIntercept": 7}, {}])
@pytest.mark.parametrize("frames", [None, 0, 1, ""])
def test_a_slope_or_frame_count_of_0_is_ignored(
    elements: dict[str, object], frames: object
) -> None:
    said = {} if frames is None else {"NumberOfFrames": frames}
    assert np.array_equal(shown(cr(**WINDOW, **elements, **said)), shown(cr(**WINDOW)))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2", "monochrome2 "])
@pytest.mark.parametrize("shape", ["", "IDENTITY", "INVERSE", "LIN OD"])
def test_the_presentation_shape_decides_the_polarity(photometric: str, shape: str) -> None:
    data = cr(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    inverse = shape == "INVERSE" or (shape != "IDENTITY" and photometric == "MONOCHROME1")
    expected = 4095 - GREY if inverse else GREY
    assert np.abs(shown(data) - stretched(expected)).max() <= 1


def test_counts_may_be_repeated_or_missing() -> None:
    data = cr(Rows=[30, 30], SamplesPerPixel=None)
    assert np.array_equal(shown(data), stretched(GREY))
