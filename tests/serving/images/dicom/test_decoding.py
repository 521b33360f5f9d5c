"""The pixels of every transfer syntax, as devices and archives write them."""

import base64
import io
from io import BytesIO

import numpy as np
import pytest
from dicoms import (
    BYTES,
    GREY,
    compressed,
    cr,
    dicom,
    grey,
    image,
    lossless,
    lut,
    rle,
    shown,
    stretched,
)
from PIL import Image
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cxr_serving.images.dicom import DicomReader

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, in what it is given


LOSSLESS = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)


def test_bits_above_those_stored_are_ignored(reader: DicomReader) -> None:
    pixels = grey()
    overlay = pixels | (grey(4, seed=1) << 12)
    assert np.array_equal(reader.read(dicom(overlay, BitsStored=12)), stretched(pixels))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_rle(reader: DicomReader, dtype: type) -> None:
    pixels = grey(8, dtype) if dtype is np.uint8 else grey(16, dtype)
    data = compressed(pixels, RLELossless, rle(pixels))
    assert np.array_equal(reader.read(data), stretched(pixels))


def test_jpeg_baseline(reader: DicomReader) -> None:
    pixels = grey(8, np.uint8)
    frame = image(pixels, "JPEG", quality=90)
    actual = reader.read(compressed(pixels, JPEGBaseline8Bit, frame))
    assert np.array_equal(actual, stretched(np.asarray(Image.open(BytesIO(frame)))))


@pytest.mark.parametrize(("syntax", "lossy"), [(JPEG2000Lossless, False), (JPEG2000, True)])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_2000(reader: DicomReader, syntax: UID, lossy: bool, bits: int) -> None:
    pixels = grey(bits, np.uint8 if bits == 8 else np.uint16)
    frame = image(pixels, "JPEG2000", irreversible=lossy, no_jp2=True)
    actual = reader.read(compressed(pixels, syntax, frame, BitsStored=bits))
    decoded = np.asarray(Image.open(BytesIO(frame)))
    assert np.array_equal(decoded, pixels) is not lossy
    assert np.array_equal(actual, stretched(decoded))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("bits", "dtype"),
    [(8, np.uint8), (8, np.int8), (10, np.uint16), (12, np.int16), (16, np.uint16), (16, np.int16)],
)
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_jpeg_lossless_and_jpeg_ls(
    reader: DicomReader, syntax: UID, bits: int, dtype: type, photometric: str
) -> None:
    pixels = grey(bits, dtype)
    frame = lossless(pixels, syntax, 8 * pixels.itemsize if dtype == np.int16 else bits)
    # The second shows the low bytes, which the first would round away.
    low = lut(2**16, -(2**15), 8, np.arange(2**16, dtype=np.uint16).astype(np.uint8).tobytes())
    for table in ({}, {"VOILUTSequence": Sequence([low])}):
        elements = {"BitsStored": bits, "PhotometricInterpretation": photometric, **table}
        actual = reader.read(compressed(pixels, syntax, frame, **elements))
        assert np.array_equal(actual, reader.read(dicom(pixels, **elements)))


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(("bits", "dtype"), [(12, np.uint16), (12, np.int16), (7, np.uint8)])
def test_bits_above_those_stored_in_a_frame_are_ignored(
    reader: DicomReader, bits: int, dtype: type, syntax: UID
) -> None:
    pixels = grey(bits, dtype)
    unsigned = pixels.view(f"u{pixels.itemsize}")
    overlay = (unsigned & (2**bits - 1)) | (grey(1, unsigned.dtype.type, seed=1) << bits)
    frame = lossless(overlay, syntax)
    actual = reader.read(compressed(pixels, syntax, frame, BitsStored=bits))
    assert np.array_equal(actual, stretched(pixels))


@pytest.mark.parametrize("padding", [b"\xff" * 3, b" ", b"\n", b"\0" * 5, b"\xff\0 \n"])
@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1, JPEGLSLossless])
def test_padding_of_a_frame_is_skipped(syntax: UID, padding: bytes) -> None:
    frame = lossless(GREY, syntax, 12).rstrip(b"\0")
    data = compressed(GREY, syntax, frame + padding, BitsStored=12)
    assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_other_segments_of_a_frame_are_skipped(syntax: UID) -> None:
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
