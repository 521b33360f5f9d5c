"""DICOM as devices and archives write it: read as viewers show it, whatever the standard says.

Mostly without the child process: what it does is a function of bytes.
"""

import base64
import io

import dicoms
import numpy as np
import pytest
from dicoms import compressed, dicom, image, lossless, lut
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
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

from cxr_serving.dicom import is_dicom
from cxr_serving.dicom.rejection import Rejected
from cxr_serving.dicom.sandbox import read

MAX_PIXELS = 10**6
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
# Every second value of 12 bits, so that a window and the range of the pixels differ.
GREY = np.random.default_rng(0).integers(1000, 3000, (30, 40)).astype(np.uint16)
BYTES = (GREY >> 4).astype(np.uint8)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, in what it is given
LITTLE_ENDIAN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def shown(data: bytes) -> np.ndarray:
    assert is_dicom(data)
    return read(data, MAX_PIXELS).astype(int)


def stretched(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return np.rint(255 * (values - values.min()) / np.ptp(values)).astype(int)


def cr(
    pixels: np.ndarray = GREY, syntax: UID = ExplicitVRLittleEndian, **elements: object
) -> bytes:
    return dicom(pixels, syntax, **{"BitsStored": 12, **elements})


def table(data: bytes, entries: int = 4096, first: int = 0, bits: int = 12) -> Sequence:
    return Sequence([lut(entries, first, bits, data)])


def words(values: np.ndarray) -> bytes:
    return np.asarray(values).astype("<u2").tobytes()


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
    film = dicoms.dataset(GREY, BitsStored=12)
    plain = dicoms.encode(film)
    unnamed = plain.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI")
    assert np.array_equal(shown(unnamed), shown(plain))


def test_explicit_elements_are_read_where_the_header_says_implicit_ones() -> None:
    said, meant = ExplicitVRLittleEndian.encode() + b"\0", ImplicitVRLittleEndian.encode()
    data = cr().replace(said, meant.ljust(len(said), b"\0"))
    assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("pixels", [GREY, BYTES])
def test_deflated_and_big_endian_files_are_read(pixels: np.ndarray, syntax: UID) -> None:
    film = dicoms.dataset(pixels)
    if syntax == ExplicitVRBigEndian:
        film.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    assert np.array_equal(shown(dicoms.encode(film, syntax)), stretched(pixels))


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


# How an image is shown.


WINDOW = {"WindowCenter": 2000, "WindowWidth": 3000}


@pytest.mark.parametrize("width", [0, -5, "", None])
def test_a_window_of_no_width_is_none(width: float | str | None) -> None:
    elements = {"WindowCenter": 0} | ({} if width is None else {"WindowWidth": width})
    assert np.array_equal(shown(cr(**elements)), stretched(GREY))


def test_the_first_window_that_has_a_width_is_shown() -> None:
    windows = cr(WindowCenter=[0, 2000], WindowWidth=[0, 3000])
    assert np.array_equal(shown(windows), shown(cr(**WINDOW)))


def test_a_window_below_1_is_in_small_units() -> None:
    units = {"RescaleSlope": "0.0001", "RescaleIntercept": "0"}
    data = cr(RAMP, WindowCenter="0.2", WindowWidth="0.3", **units)
    expected = np.rint(255 * ((RAMP * 1e-4 - 0.2) / 0.3 + 0.5).clip(0, 1))
    assert np.abs(shown(data) - expected).max() <= 1
    # Narrower than the step from one value to the next, it would show black and white alone.
    assert np.array_equal(shown(cr(WindowCenter=2000, WindowWidth="0.5")), stretched(GREY))


@pytest.mark.parametrize("syntax", LITTLE_ENDIAN)
@pytest.mark.parametrize(
    ("written", "meant"), [("2000,5", "2000.5"), ("  2000", "2000"), ("2e3   ", "2000")]
)
def test_a_number_may_be_written_as_people_do(written: str, meant: str, syntax: UID) -> None:
    data = cr(syntax=syntax, WindowCenter="987654", WindowWidth=3000)
    said = data.replace(b"987654", written.ljust(6).encode())
    assert np.array_equal(shown(said), shown(cr(WindowCenter=meant, WindowWidth=3000)))


@pytest.mark.parametrize("word", [b"nan   ", b"inf   ", b"Doe^J ", b"      "])
def test_what_is_no_number_is_no_window(word: bytes) -> None:
    data = cr(WindowCenter="987654", WindowWidth=3000).replace(b"987654", word)
    assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize(
    ("written", "meant"),
    [("linear", "LINEAR"), ("Sigmoid", "SIGMOID"), ("linear_exact", "LINEAR_EXACT"), ("CUBIC", "")],
)
def test_the_function_of_a_window_in_any_case(written: str, meant: str) -> None:
    window = {"WindowCenter": 2000, "WindowWidth": 9}
    assert np.array_equal(
        shown(cr(VOILUTFunction=written, **window)), shown(cr(VOILUTFunction=meant, **window))
    )


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_an_empty_item_of_tables_is_none(keyword: str) -> None:
    only_described = Dataset()
    only_described.LUTDescriptor = [4096, 0, 12]
    for empty in (Dataset(), only_described):
        data = cr(**WINDOW, **{keyword: Sequence([empty])})
        assert np.array_equal(shown(data), shown(cr(**WINDOW)))
        data = cr(**{keyword: Sequence([empty])})
        assert np.array_equal(shown(data), stretched(GREY))


@pytest.mark.parametrize("held", [8, 10, 12, 14])
@pytest.mark.parametrize("said", [8, 12, 16])
def test_a_table_is_shown_over_the_bits_that_it_holds(said: int, held: int) -> None:
    curve = np.rint((2**held - 1) * np.sqrt(np.arange(4096) / 4095))
    data = cr(RAMP, VOILUTSequence=table(words(curve), bits=said))
    expected = np.rint(255 * curve / (2**held - 1)).reshape(RAMP.shape)
    assert np.array_equal(shown(data), expected)


@pytest.mark.parametrize("entries", [4096, 4097, 4000])
def test_a_table_is_as_long_as_it_is(entries: int) -> None:
    right = cr(RAMP, VOILUTSequence=table(words(np.arange(4096))))
    data = cr(RAMP, VOILUTSequence=table(words(np.arange(4096)), entries))
    assert np.array_equal(shown(data), shown(right))


@pytest.mark.parametrize("syntax", LITTLE_ENDIAN)
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_first_value_written_as_unsigned_is_the_signed_one(keyword: str, syntax: UID) -> None:
    pixels = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    item = lut(4096, 0, 12, words(np.arange(4096)))
    item.add_new("LUTDescriptor", "US", [4096, 2**16 - 2048, 12])
    data = cr(pixels, syntax, **{keyword: Sequence([item])})
    assert np.array_equal(shown(data), stretched(RAMP))


@pytest.mark.parametrize("elements", [{"RescaleSlope": 0, "RescaleIntercept": 7}, {}])
@pytest.mark.parametrize("frames", [None, 0, 1, ""])
def test_a_slope_and_a_number_of_frames_of_0_say_nothing(
    elements: dict[str, object], frames: object
) -> None:
    said = {} if frames is None else {"NumberOfFrames": frames}
    assert np.array_equal(shown(cr(**WINDOW, **elements, **said)), shown(cr(**WINDOW)))


@pytest.mark.parametrize("syntax", LITTLE_ENDIAN)
def test_a_padding_value_said_twice_is_said_once(syntax: UID) -> None:
    framed = np.pad(GREY, 5, constant_values=4095)
    data = cr(framed, syntax, PixelPaddingValue=[4095, 4095])
    assert np.array_equal(shown(data), np.pad(stretched(GREY), 5))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2", "monochrome2 "])
@pytest.mark.parametrize("shape", ["", "IDENTITY", "INVERSE", "LIN OD"])
def test_the_presentation_decides_what_is_white_where_there_is_one(
    photometric: str, shape: str
) -> None:
    data = cr(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    inverse = shape == "INVERSE" or (shape != "IDENTITY" and photometric == "MONOCHROME1")
    expected = 4095 - GREY if inverse else GREY
    assert np.abs(shown(data) - stretched(expected)).max() <= 1


def test_counts_that_are_said_twice_or_not_at_all() -> None:
    data = cr(Rows=[30, 30], SamplesPerPixel=None)
    assert np.array_equal(shown(data), stretched(GREY))


@settings(deadline=None, max_examples=60)
@given(
    center=st.floats(-1e6, 1e6),
    width=st.floats(-1e6, 1e6),
    slope=st.floats(-1e3, 1e3),
    entries=st.integers(0, 2**16 - 1),
    first=st.integers(0, 2**16 - 1),
    bits=st.integers(0, 2**16 - 1),
    short=st.integers(0, 50),
)
def test_whatever_is_said_of_shades_is_shown_or_rejected(
    center: float, width: float, slope: float, entries: int, first: int, bits: int, short: int
) -> None:
    item = lut(entries, 0, 12, words(np.arange(50))[: 2 * short])
    item.add_new("LUTDescriptor", "US", [entries, first, bits])
    elements = {"WindowCenter": f"{center:.6g}", "WindowWidth": f"{width:.6g}"}
    elements |= {"RescaleSlope": f"{slope:.6g}", "RescaleIntercept": "3"}
    for sequence in ({}, {"VOILUTSequence": Sequence([item])}):
        try:
            assert shown(cr(**elements, **sequence)).shape == GREY.shape
        except Rejected as rejected:
            assert rejected.rejection.name in ("BLANK", "SHADING")  # noqa: PT017
