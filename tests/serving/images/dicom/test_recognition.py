"""Which files are DICOM, with or without their header."""

import numpy as np
import pytest
from dicoms import (
    BYTES,
    GREY,
    LITTLE_ENDIAN,
    cr,
    grey,
    image,
    shown,
    stretched,
)
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    UID,
)

from cxr_serving.images.dicom import is_dicom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, in what it is given


def test_other_files_are_not_dicom() -> None:
    assert not is_dicom(b"")
    assert not is_dicom(image(grey(8, np.uint8), "PNG"))


@pytest.mark.parametrize("start", [b"II*\0\x08", b"MM\0*", b"\x01", b"A viewer wrote this", b"MZ"])
def test_any_preamble_is_skipped(start: bytes) -> None:
    assert np.array_equal(shown(start + cr()[len(start) :]), stretched(GREY))


@pytest.mark.parametrize("syntax", LITTLE_ENDIAN)
@pytest.mark.parametrize("lost", ["preamble", "preamble and magic number", "all before the image"])
def test_a_file_without_its_header_is_read(lost: str, syntax: UID) -> None:
    data = cr(syntax=syntax, WindowCenter=2000, WindowWidth=4000)
    first = data.index(b"\x08\x00\x16\x00", 132)
    whole = {"preamble": 128, "preamble and magic number": 132, "all before the image": first}
    assert np.array_equal(shown(data[whole[lost] :]), shown(data))


@given(st.binary(max_size=400))
def test_random_bytes_are_not_dicom(rubbish: bytes) -> None:
    for start in (b"", b"\x08\x00", b"\x02\x00", b"\x08\x00\x05\x00", b"\xff\xd8\xff", b"\x89PNG"):
        assert not is_dicom(start + rubbish) or b"DICM" in rubbish


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "TIFF", "JPEG2000"])
def test_other_image_formats_are_not_dicom(file_format: str) -> None:
    assert not is_dicom(image(BYTES, file_format))
