"""DICOM as devices and archives write it: read as viewers show it, whatever the standard says.

Mostly without the child process: what it does is a function of bytes.
"""

import base64
import io

import dicoms
import numpy as np
import pytest
from dicoms import (
    BYTES,
    GREY,
    LITTLE_ENDIAN,
    compressed,
    cr,
    image,
    lossless,
    shown,
    stretched,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from cxr_serving.images.dicom import is_dicom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, in what it is given


# What begins and holds a file.


@pytest.mark.parametrize("start", [b"II*\0\x08", b"MM\0*", b"\x01", b"A viewer wrote this", b"MZ"])
def test_any_preamble_is_passed_over(start: bytes) -> None:
    assert np.array_equal(shown(start + cr()[len(start) :]), stretched(GREY))


@pytest.mark.parametrize("syntax", LITTLE_ENDIAN)
@pytest.mark.parametrize("lost", ["preamble", "preamble and magic number", "all before the image"])
def test_a_file_without_its_header_is_read(lost: str, syntax: UID) -> None:
    data = cr(syntax=syntax, WindowCenter=2000, WindowWidth=4000)
    first = data.index(b"\x08\x00\x16\x00", 132)
    whole = {"preamble": 128, "preamble and magic number": 132, "all before the image": first}
    assert np.array_equal(shown(data[whole[lost] :]), shown(data))


def test_meta_information_that_names_no_syntax_is_no_loss() -> None:
    radiograph = dicoms.dataset(GREY, BitsStored=12)
    plain = dicoms.encode(radiograph)
    unnamed = plain.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI")
    assert np.array_equal(shown(unnamed), shown(plain))


def test_explicit_elements_are_read_where_the_header_says_implicit_ones() -> None:
    said, meant = ExplicitVRLittleEndian.encode() + b"\0", ImplicitVRLittleEndian.encode()
    data = cr().replace(said, meant.ljust(len(said), b"\0"))
    assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("pixels", [GREY, BYTES])
def test_deflated_and_big_endian_files_are_read(pixels: np.ndarray, syntax: UID) -> None:
    radiograph = dicoms.dataset(pixels)
    if syntax == ExplicitVRBigEndian:
        radiograph.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    assert np.array_equal(shown(dicoms.encode(radiograph, syntax)), stretched(pixels))


@given(st.binary(max_size=400))
def test_rubbish_is_no_dicom(rubbish: bytes) -> None:
    for start in (b"", b"\x08\x00", b"\x02\x00", b"\x08\x00\x05\x00", b"\xff\xd8\xff", b"\x89PNG"):
        assert not is_dicom(start + rubbish) or b"DICM" in rubbish


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "TIFF", "JPEG2000"])
def test_other_images_are_no_dicom(file_format: str) -> None:
    assert not is_dicom(image(BYTES, file_format))


# Compressed frames.


@pytest.mark.parametrize("padding", [b"\xff" * 3, b" ", b"\n", b"\0" * 5, b"\xff\0 \n"])
@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1, JPEGLSLossless])
def test_what_pads_a_frame_is_passed_over(syntax: UID, padding: bytes) -> None:
    frame = lossless(GREY, syntax, 12).rstrip(b"\0")
    data = compressed(GREY, syntax, frame + padding, BitsStored=12)
    assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_what_a_frame_says_besides_is_passed_over(syntax: UID) -> None:
    frame = lossless(GREY, syntax, 12)
    unknown = b"\xff\xff\xff\xe0\0\x10JFIF\0\x09\x09" + bytes(7) + b"\xff\xff\xfe\0\x06text\xff"
    data = compressed(GREY, syntax, frame[:2] + unknown + frame[2:], BitsStored=12)
    assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize("padding", [b"", b"\0", b"\xff", b"\0\0\0"])
@pytest.mark.parametrize("open_tile", [False, True])
@pytest.mark.parametrize("side", [30, 31, 32, 33])
def test_jpeg_2000_may_leave_its_tile_open(side: int, open_tile: bool, padding: bytes) -> None:
    pixels = np.random.default_rng(side).integers(0, 4096, (side, side)).astype(np.uint16)
    frame = image(pixels, "JPEG2000", no_jp2=True)
    if open_tile:
        tile = frame.index(b"\xff\x90\x00\x0a")
        frame = frame[: tile + 6] + bytes(4) + frame[tile + 10 :]
    data = compressed(pixels, JPEG2000Lossless, frame + padding, BitsStored=12)
    assert np.array_equal(shown(data), stretched(pixels))


def test_a_comment_may_pad_jpeg_2000() -> None:
    frame = image(GREY, "JPEG2000", no_jp2=True)
    padded = frame[:-2] + b"\xff\x64\0\x0b\0\1PADDING" + frame[-2:]
    data = compressed(GREY, JPEG2000Lossless, padded, BitsStored=12)
    assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize("stored", [8, 12, 16])
def test_jpeg_baseline_has_8_bits_whatever_is_allocated(stored: int) -> None:
    frame = image(BYTES, "JPEG", quality=95)
    data = compressed(BYTES, JPEGBaseline8Bit, frame, BitsAllocated=16, BitsStored=stored)
    assert np.array_equal(shown(data), stretched(np.asarray(Image.open(io.BytesIO(frame)))))


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_lossless_frames_know_their_bits_better_than_the_file(syntax: UID) -> None:
    bytes_in_words = compressed(
        BYTES, syntax, lossless(BYTES, syntax), BitsAllocated=16, BitsStored=8
    )
    assert np.array_equal(shown(bytes_in_words), stretched(BYTES))
    words_in_bytes = compressed(
        GREY, syntax, lossless(GREY, syntax, 12), BitsAllocated=8, BitsStored=8
    )
    assert np.array_equal(shown(words_in_bytes), stretched(GREY))


# 16 x 16 pixels of 500, 508, ... 2540, by dcmtk's dcmcjpeg: nothing in Python writes 12 bits.
EXTENDED = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
    "AQEBAQEBAQEBAQEBAQEBAQH/wQALDAAQABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAACg0O/8QAHBAAAAYDAAAAAAAAAAAA"
    "AAAAAAgMKDRHU2Vx/9oACAEBAAA/AMdvltTcUBheKtua0IALam4oDC8Vbc1ovABbU3FAYXirbmtCAC2puKAwvFW3NaP/2Q=="
)


@pytest.mark.parametrize("stored", [10, 12])
def test_jpeg_extended_is_read_with_12_bits(stored: int) -> None:
    pixels = (500 + 8 * np.arange(256, dtype=np.uint16)).reshape(16, 16)
    data = compressed(pixels, JPEGExtended12Bit, EXTENDED + b"\xff\xff", BitsStored=stored)
    assert np.abs(shown(data) - stretched(pixels)).max() <= 1


def test_jpeg_extended_is_read_with_8_bits() -> None:
    frame = image(BYTES, "JPEG", quality=95)
    data = compressed(BYTES, JPEGExtended12Bit, frame)
    assert np.array_equal(shown(data), stretched(np.asarray(Image.open(io.BytesIO(frame)))))


def test_a_high_bit_above_those_stored_is_the_topmost_of_the_image() -> None:
    overlay = np.random.default_rng(1).integers(0, 4, GREY.shape).astype(np.uint16)
    for high in (11, 13, 15):
        shifted = (GREY << (high - 11)) | (overlay << 14 if high == 13 else 0)
        assert np.array_equal(shown(cr(shifted, HighBit=high)), stretched(GREY))
