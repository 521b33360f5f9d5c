"""DICOM images: the grey levels a viewer shows, and what is rejected and survived."""

import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path

import dicoms
import numpy as np
import pytest
from dicoms import compressed, dicom, image, lossless, lut, rle, rle_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
    generate_uid,
)

from cxr_serving.images.dicom import DicomReader, is_dicom
from cxr_serving.model.preprocessing import (
    ImageError,
    ImageTooLarge,
    UndecodableImage,
    UnsupportedImage,
)

MAX_PIXELS = 64_000_000
HEIGHT, WIDTH = 30, 40
LAST = 2**12 - 1
LOSSLESS = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    reader = DicomReader(MAX_PIXELS, seconds=20, memory_bytes=2**30)
    yield reader
    reader.close()


@pytest.fixture
def make_reader() -> Iterator[Callable[..., DicomReader]]:
    """``make_reader(seconds, memory_bytes)``: with a child of its own."""
    readers: list[DicomReader] = []

    def make(seconds: float = 20, memory_bytes: int = 2**30) -> DicomReader:
        readers.append(DicomReader(MAX_PIXELS, seconds, memory_bytes))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()


def grey(bits: int = 12, dtype: type = np.uint16, seed: int = 0) -> np.ndarray:
    """Noise over all values of ``bits`` bits."""
    low = -(2 ** (bits - 1)) if np.issubdtype(dtype, np.signedinteger) else 0
    return np.random.default_rng(seed).integers(low, low + 2**bits, (HEIGHT, WIDTH)).astype(dtype)


def stretched(values: np.ndarray) -> np.ndarray:
    """The lowest value black, the highest white."""
    values = values.astype(np.float64)
    return np.rint(255 * (values - values.min()) / np.ptp(values)).astype(np.uint8)


def ramp() -> np.ndarray:
    """Every value of 12 bits once."""
    return np.arange(2**12, dtype=np.uint16).reshape(64, 64)


def children() -> set[int]:
    """The processes that decode for this one."""
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "cxr_serving.images.dicom"],
        capture_output=True,
        text=True,
        check=False,
    )
    return set(map(int, found.stdout.split()))


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [(8, np.uint8), (8, np.int8), (10, np.uint16), (12, np.int16), (16, np.uint16), (16, np.int16)],
)
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_every_depth_is_stretched_over_what_it_holds(
    reader: DicomReader, bits: int, dtype: type, syntax: UID | None
) -> None:
    pixels = grey(bits, dtype)
    data = dicom(pixels, *[syntax] if syntax else [], BitsStored=bits)
    assert is_dicom(data)
    radiograph = reader.read(data)
    assert radiograph.dtype == np.uint8
    assert np.array_equal(radiograph, stretched(pixels))


def test_what_lies_above_the_bits_stored_is_no_part_of_the_image(reader: DicomReader) -> None:
    pixels = grey()
    overlay = pixels | (grey(4, seed=1) << 12)
    assert np.array_equal(reader.read(dicom(overlay, BitsStored=12)), stretched(pixels))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000.5, 333), (700, 1), (0, 50.25)])
def test_windows_are_those_of_pydicom(
    reader: DicomReader, function: str | None, center: float, width: float
) -> None:
    window = {"WindowCenter": center, "WindowWidth": width}
    if function:
        window["VOILUTFunction"] = function
    radiograph = dicoms.dataset(ramp(), BitsStored=12, **window)
    expected = np.rint(255 * (apply_windowing(ramp(), radiograph) / LAST)).astype(np.uint8)
    assert np.array_equal(reader.read(dicoms.encode(radiograph)), expected)


def test_the_linear_window_is_that_of_the_standard(reader: DicomReader) -> None:
    # PS3.3 C.11.2.1.2.1, with c = 2048 and w = 4096 over 12 bits: the identity but for rounding.
    radiograph = reader.read(dicom(ramp(), BitsStored=12, WindowCenter=2048, WindowWidth=4096))
    assert np.array_equal(radiograph, np.rint(ramp() / LAST * 255))


def test_the_first_of_several_windows_is_shown(reader: DicomReader) -> None:
    one = dicom(ramp(), BitsStored=12, WindowCenter=700, WindowWidth=300)
    two = dicom(ramp(), BitsStored=12, WindowCenter=[700, 3000], WindowWidth=[300, 100])
    assert np.array_equal(reader.read(one), reader.read(two))


@pytest.mark.parametrize("slope", [0.5, -2.0])
def test_a_window_is_in_rescaled_values(reader: DicomReader, slope: float) -> None:
    pixels = grey()
    radiograph = reader.read(
        dicom(
            pixels,
            BitsStored=12,
            RescaleSlope=slope,
            RescaleIntercept=-1000,
            WindowCenter=-900,
            WindowWidth=1000,
            VOILUTFunction="LINEAR_EXACT",
        )
    )
    shades = (pixels * slope - 1000 + 900) / 1000 + 0.5
    assert np.array_equal(radiograph, np.rint(255 * shades.clip(0, 1)))


def test_without_a_window_rescaled_values_are_stretched(reader: DicomReader) -> None:
    pixels = grey()
    radiograph = reader.read(dicom(pixels, BitsStored=12, RescaleSlope=-3, RescaleIntercept=7))
    assert np.array_equal(radiograph, stretched(-3.0 * pixels + 7))


@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_a_look_up_table_goes_before_a_window(
    reader: DicomReader, bits: int, syntax: UID | None
) -> None:
    table = np.random.default_rng(2).integers(0, 2**bits, 1000)
    item = lut(1000, 500, bits, table.astype("<u2").tobytes())
    data = dicom(
        ramp(),
        *[syntax] if syntax else [],
        BitsStored=12,
        VOILUTSequence=Sequence([item]),
        WindowCenter=100,
        WindowWidth=200,
    )
    expected = table[(ramp().astype(int) - 500).clip(0, 999)] / (2**bits - 1)
    assert np.array_equal(reader.read(data), np.rint(255 * expected))


def test_a_table_of_bytes_with_a_negative_start(reader: DicomReader) -> None:
    table = np.random.default_rng(3).integers(0, 256, 601).astype(np.uint8)
    pixels = grey(12, np.int16)
    item = lut(601, -300, 8, table.tobytes() + b"\0")
    radiograph = reader.read(dicom(pixels, BitsStored=12, VOILUTSequence=Sequence([item])))
    assert np.array_equal(radiograph, table[(pixels.astype(int) + 300).clip(0, 600)])


def test_a_table_of_all_16_bits(reader: DicomReader) -> None:
    table = np.arange(2**16 - 1, -1, -1, dtype="<u2")
    pixels = grey(16)
    item = lut(2**16, 0, 16, table.tobytes())
    radiograph = reader.read(dicom(pixels, VOILUTSequence=Sequence([item])))
    assert np.array_equal(radiograph, np.rint(255 * (table[pixels] / (2**16 - 1))))


def test_a_modality_table_goes_before_the_window(reader: DicomReader) -> None:
    table = (np.arange(4096) ** 2 // 4096).astype("<u2")
    data = dicom(
        ramp(),
        BitsStored=12,
        ModalityLUTSequence=Sequence([lut(4096, 0, 16, table.tobytes())]),
        WindowCenter=1000,
        WindowWidth=500,
        VOILUTFunction="LINEAR_EXACT",
    )
    expected = ((table[ramp()] - 1000.0) / 500 + 0.5).clip(0, 1)
    assert np.array_equal(reader.read(data), np.rint(255 * expected))


@pytest.mark.parametrize("shape", [False, True])
@pytest.mark.parametrize("window", [False, True])
def test_both_polarities_of_a_image_look_the_same(
    reader: DicomReader, shape: bool, window: bool
) -> None:
    def data(pixels: np.ndarray, photometric: str, center: float, lut_shape: str) -> bytes:
        elements: dict[str, object] = {"PresentationLUTShape": lut_shape} if shape else {}
        if window:
            elements |= {"WindowCenter": center, "WindowWidth": 1024}
            elements["VOILUTFunction"] = "LINEAR_EXACT"
        return dicom(pixels, BitsStored=12, PhotometricInterpretation=photometric, **elements)

    bright = reader.read(data(ramp(), "MONOCHROME2", 1000, "IDENTITY"))
    dark = reader.read(data(LAST - ramp(), "MONOCHROME1", LAST - 1000, "INVERSE"))
    assert np.array_equal(bright, dark)
    assert (bright[0, 0], bright[-1, -1]) == (0, 255)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "padding"),
    [
        (np.uint16, {"PixelPaddingValue": 4095}),
        (np.int16, {"PixelPaddingValue": -2048}),
        (np.int16, {"PixelPaddingValue": -2048, "PixelPaddingRangeLimit": -2001}),
        (np.int16, {"PixelPaddingValue": -2001, "PixelPaddingRangeLimit": -2048}),
    ],
)
def test_padding_is_black_and_moves_no_grey(
    reader: DicomReader, photometric: str, dtype: type, padding: dict[str, int]
) -> None:
    inside = np.random.default_rng(4).integers(100, 900, (HEIGHT, WIDTH)).astype(dtype)
    framed = np.pad(inside, 5, constant_values=padding["PixelPaddingValue"])
    data = dicom(framed, BitsStored=12, PhotometricInterpretation=photometric, **padding)
    alone = dicom(inside, BitsStored=12, PhotometricInterpretation=photometric)
    assert np.array_equal(reader.read(data), np.pad(reader.read(alone), 5))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_rle(reader: DicomReader, dtype: type) -> None:
    pixels = grey(8, dtype) if dtype is np.uint8 else grey(16, dtype)
    data = compressed(pixels, RLELossless, rle(pixels))
    assert np.array_equal(reader.read(data), stretched(pixels))


def test_jpeg_baseline(reader: DicomReader) -> None:
    pixels = grey(8, np.uint8)
    frame = image(pixels, "JPEG", quality=90)
    radiograph = reader.read(compressed(pixels, JPEGBaseline8Bit, frame))
    assert np.array_equal(radiograph, stretched(np.asarray(Image.open(BytesIO(frame)))))


@pytest.mark.parametrize(("syntax", "lossy"), [(JPEG2000Lossless, False), (JPEG2000, True)])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_2000(reader: DicomReader, syntax: UID, lossy: bool, bits: int) -> None:
    pixels = grey(bits, np.uint8 if bits == 8 else np.uint16)
    frame = image(pixels, "JPEG2000", irreversible=lossy, no_jp2=True)
    radiograph = reader.read(compressed(pixels, syntax, frame, BitsStored=bits))
    decoded = np.asarray(Image.open(BytesIO(frame)))
    assert np.array_equal(decoded, pixels) is not lossy
    assert np.array_equal(radiograph, stretched(decoded))


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
    for shown in ({}, {"VOILUTSequence": Sequence([low])}):
        elements = {"BitsStored": bits, "PhotometricInterpretation": photometric, **shown}
        radiograph = reader.read(compressed(pixels, syntax, frame, **elements))
        assert np.array_equal(radiograph, reader.read(dicom(pixels, **elements)))


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(("bits", "dtype"), [(12, np.uint16), (12, np.int16), (7, np.uint8)])
def test_what_lies_above_the_bits_stored_of_a_frame_is_no_part_of_the_image(
    reader: DicomReader, bits: int, dtype: type, syntax: UID
) -> None:
    pixels = grey(bits, dtype)
    unsigned = pixels.view(f"u{pixels.itemsize}")
    overlay = (unsigned & (2**bits - 1)) | (grey(1, unsigned.dtype.type, seed=1) << bits)
    frame = lossless(overlay, syntax)
    radiograph = reader.read(compressed(pixels, syntax, frame, BitsStored=bits))
    assert np.array_equal(radiograph, stretched(pixels))


@pytest.mark.parametrize("modality", ["CR", "DX", "DR", "RF", "RG"])
def test_radiographs_are_accepted(reader: DicomReader, modality: str) -> None:
    data = dicom(grey(), Modality=modality, NumberOfFrames=1, RescaleSlope=1, RescaleIntercept=0)
    assert reader.read(data).shape == (HEIGHT, WIDTH)


def record(**elements: object) -> bytes:
    """A file without an image."""
    radiograph = Dataset()
    radiograph.SOPClassUID, radiograph.SOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.88.11",
        generate_uid(),
    )
    for keyword, value in elements.items():
        setattr(radiograph, keyword, value)
    return dicoms.encode(radiograph)


def directory() -> bytes:
    """The DICOMDIR of a disc."""
    radiograph = Dataset()
    radiograph.SOPClassUID, radiograph.SOPInstanceUID = MediaStorageDirectoryStorage, generate_uid()
    radiograph.FileSetID = "DISC"
    radiograph.DirectoryRecordSequence = Sequence([])
    return dicoms.encode(radiograph)


def bomb() -> bytes:
    """Half a megabyte, which is more than the largest image when it is inflated."""
    plain = dicom(grey())
    # Behind the meta information, which has a name of two bytes more in the other file.
    head = plain.index(b"\x08\x00\x16\x00UI") + 2
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflater.compress(plain[head:])
    packed += b"".join(deflater.compress(bytes(2**20)) for _ in range(150)) + deflater.flush()
    return dicom(grey(), DeflatedExplicitVRLittleEndian)[:head] + packed


def appended(elements: bytes) -> bytes:
    return dicom(grey()) + elements


def nested(levels: int) -> bytes:
    # ContentSequence, an item, and so on; then their ends.
    begin = struct.pack("<HH2sHLHHL", 0x40, 0xA730, b"SQ", 0, 2**32 - 1, 0xFFFE, 0xE000, 2**32 - 1)
    end = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return appended(begin * levels + end * levels)


def many(count: int) -> bytes:
    elements = (struct.pack("<HH2sH2s", 0x11, 0x1000 + i, b"LO", 2, b"x ") for i in range(count))
    return appended(b"".join(elements))


def window(**elements: object) -> Callable[[], bytes]:
    return partial(dicom, ramp(), BitsStored=12, **elements)


def with_table(entries: int, bits: int, data: bytes) -> bytes:
    return dicom(grey(), VOILUTSequence=Sequence([lut(entries, 0, bits, data)]))


def jpeg_of_another_size() -> bytes:
    return compressed(grey(8, np.uint8), JPEGBaseline8Bit, image(np.ones((1, 1), np.uint8), "JPEG"))


def lossless_frame(
    syntax: UID, change: Callable[[bytes], bytes] = bytes, dtype: type = np.uint16, **elements: int
) -> bytes:
    """An image whose frame is of 12 bits, and changed."""
    frame = change(lossless(grey(), syntax, 12))
    return compressed(grey().astype(dtype), syntax, frame, **elements)


def declaring(frame: bytes, position: int, value: int) -> bytes:
    """A frame with another byte at a position: 6 of its precision, 11 of its components."""
    changed = bytearray(frame)
    changed[position] = value
    return bytes(changed)


FRAMES: dict[str, Callable[[UID], bytes]] = {
    "cut": partial(lossless_frame, change=lambda frame: frame[: len(frame) // 2]),
    "without its end": partial(lossless_frame, change=lambda frame: frame.rstrip(b"\0")[:-2]),
    "head only": partial(lossless_frame, change=lambda frame: frame[:20]),
    "empty": partial(lossless_frame, change=lambda frame: b"\xff\xd8\xff\xd9"),
    "zeros": partial(lossless_frame, change=lambda frame: bytes(len(frame))),
    "another format": partial(
        lossless_frame,
        dtype=np.uint8,
        change=lambda frame: image(grey(8, np.uint8), "JPEG"),
    ),
    "smaller": partial(lossless_frame, Rows=HEIGHT - 1),
    "larger": partial(lossless_frame, Rows=HEIGHT + 1),
    "turned": partial(lossless_frame, Rows=WIDTH, Columns=HEIGHT),
    "too deep": partial(lossless_frame, change=partial(declaring, position=6, value=17)),
    "colour": partial(lossless_frame, change=partial(declaring, position=11, value=3)),
    "twice": partial(lossless_frame, change=lambda frame: frame[:15] + frame[2:]),
    "no segment": partial(lossless_frame, change=lambda frame: frame[:15] + b"\0" + frame[15:]),
}


REJECTIONS: dict[str, tuple[Callable[[], bytes], type[ImageError], str]] = {
    "cut": (
        lambda: compressed(grey(), JPEGLosslessSV1, lossless(grey(), JPEGLosslessSV1))[:-200],
        UndecodableImage,
        "broken",
    ),
    "nothing": (lambda: bytes(128) + b"DICM", UndecodableImage, "broken"),
    "garbage": (
        lambda: bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000),
        UndecodableImage,
        "broken",
    ),
    "unknown syntax": (
        lambda: dicom(grey()).replace(ExplicitVRLittleEndian.encode(), b"1.2.840.10008.9.2.1"),
        UnsupportedImage,
        "transfer syntax",
    ),
    "inflated": (bomb, UndecodableImage, "too large"),
    "cut while deflated": (
        lambda: dicom(grey(), DeflatedExplicitVRLittleEndian)[:-200],
        UndecodableImage,
        "broken",
    ),
    "directory": (directory, UnsupportedImage, "holds no image"),
    "report": (partial(record, Modality="SR"), UnsupportedImage, "holds no image"),
    "without pixels": (partial(record, Modality="DX"), UndecodableImage, "missing"),
    "compressed, as it does not say": (
        lambda: compressed(grey(), JPEGLosslessSV1, lossless(grey(), JPEGLosslessSV1)).replace(
            JPEGLosslessSV1.encode(), ExplicitVRLittleEndian.encode().ljust(22, b"\0")
        ),
        UndecodableImage,
        "broken",
    ),
    **{
        modality: (partial(dicom, grey(), Modality=modality), UnsupportedImage, "not a radiograph")
        for modality in ("CT", "US", "SR", "MR", "XA", "MG", "SEG", "")
    },
    "no modality": (partial(dicom, grey(), Modality=None), UnsupportedImage, "not a radiograph"),
    "raw": (
        partial(dicom, grey(), PresentationIntentType="FOR PROCESSING"),
        UnsupportedImage,
        "FOR PRESENTATION",
    ),
    "frames": (partial(dicom, grey(), NumberOfFrames=2), UnsupportedImage, "several frames"),
    "palette": (
        partial(dicom, grey(), PhotometricInterpretation="PALETTE COLOR"),
        UnsupportedImage,
        "palette",
    ),
    "colour": (
        partial(dicom, grey(), PhotometricInterpretation="RGB", SamplesPerPixel=3),
        UnsupportedImage,
        "not grey",
    ),
    "samples": (partial(dicom, grey(), SamplesPerPixel=3), UnsupportedImage, "not grey"),
    "32 bits": (partial(dicom, grey().astype(np.uint32)), UnsupportedImage, "Bits Allocated"),
    "bits": (partial(dicom, grey(), BitsStored=17), UnsupportedImage, "Bits Stored"),
    "high bit": (
        partial(dicom, grey(), BitsStored=12, HighBit=10),
        UnsupportedImage,
        "High Bit",
    ),
    "area": (partial(dicom, grey(), Rows=65535, Columns=65535), ImageTooLarge, "64,000,000 pixels"),
    "rows": (partial(dicom, grey(), Rows=HEIGHT + 1), UndecodableImage, "truncated"),
    "no rows": (partial(dicom, grey(), Rows=0), UndecodableImage, "truncated"),
    "truncated": (lambda: dicom(grey())[:-100], UndecodableImage, "truncated"),
    "head only": (lambda: dicom(grey())[:600], UndecodableImage, "broken"),
    "empty RLE": (
        lambda: compressed(grey(), RLELossless, rle_frame([b"\0\0"] * 2)),
        UndecodableImage,
        "truncated",
    ),
    "JPEG of another size": (jpeg_of_another_size, UndecodableImage, "truncated"),
    "broken JPEG 2000": (
        lambda: compressed(grey(), JPEG2000Lossless, b"\xff\x4f\xff\x51" + bytes(200)),
        UndecodableImage,
        "truncated",
    ),
    **{
        f"{syntax.name[:13]} {name}": (partial(make, syntax), UndecodableImage, "truncated")
        for name, make in FRAMES.items()
        for syntax in (JPEGLosslessSV1, JPEGLSLossless)
    },
    "infinite": (
        window(WindowCenter=0, WindowWidth=9, RescaleSlope="1e308", RescaleIntercept=0),
        UndecodableImage,
        "rescale",
    ),
    "far away": (window(WindowCenter="1e300", WindowWidth="1e3"), UndecodableImage, "blank"),
    "constant": (partial(dicom, np.full((9, 9), 7, np.uint16)), UndecodableImage, "blank"),
    "padding only": (
        partial(dicom, np.full((9, 9), 7, np.uint16), PixelPaddingValue=7),
        UndecodableImage,
        "blank",
    ),
    "large table": (
        partial(with_table, 9, 8, bytes(2**20)),
        UndecodableImage,
        "too large elements",
    ),
    "nesting": (partial(nested, 1000), UndecodableImage, "nested too deeply"),
    "elements": (partial(many, 20_000), UndecodableImage, "too many"),
}


@pytest.mark.parametrize(("make", "kind", "words"), REJECTIONS.values(), ids=REJECTIONS)
def test_rejections_say_why_and_name_nobody(
    reader: DicomReader,
    make: Callable[[], bytes],
    kind: type[ImageError],
    words: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = make()
    assert is_dicom(data)
    capfd.readouterr()  # of writing the file
    caplog.clear()
    with pytest.raises(ImageError, match=words) as rejected:
        reader.read(data)
    assert type(rejected.value) is kind
    assert rejected.value.__cause__ is None
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize("data", [nested(20), many(2000)], ids=["nesting", "elements"])
def test_what_devices_add_is_passed_over(reader: DicomReader, data: bytes) -> None:
    assert np.array_equal(reader.read(data), stretched(grey()))


def test_what_libraries_say_of_a_file_goes_nowhere() -> None:
    # pydicom warns of such a character set, and quotes it.
    data = dicom(grey(), SpecificCharacterSet="ISO_IR 100")
    script = (
        "import sys\n"
        "from cxr_serving.images.dicom import DicomReader\n"
        "print(DicomReader(10**6, 20, 2**30).read(sys.stdin.buffer.read()).shape)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        input=data.replace(b"ISO_IR 100", dicoms.PATIENT.encode() + b"  "),
        capture_output=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == (b"(30, 40)\n", b"")


FILES = [
    dicom(grey(8, np.uint8), WindowCenter=100, WindowWidth=90),
    dicom(grey(), ImplicitVRLittleEndian, PixelPaddingValue=3),
    dicom(grey(), VOILUTSequence=Sequence([lut(9, 0, 8, bytes(9) + b"\1")])),
    compressed(grey(), RLELossless, rle(grey())),
    compressed(grey(8, np.uint8), JPEGBaseline8Bit, image(grey(8, np.uint8), "JPEG")),
    compressed(grey(), JPEG2000, image(grey(), "JPEG2000", no_jp2=True)),
    compressed(grey(), JPEGLosslessSV1, lossless(grey(), JPEGLosslessSV1)),
    compressed(grey(), JPEGLSLossless, lossless(grey(), JPEGLSLossless)),
]


@settings(deadline=None, max_examples=200)
@given(
    file=st.sampled_from(FILES),
    # Most of what matters lies before the pixels.
    changes=st.lists(st.tuples(st.integers(132, 1000), st.integers(0, 255)), max_size=8),
    end=st.one_of(st.none(), st.integers(132, 4000)),
)
def test_any_damage_is_a_image_or_a_rejection(
    reader: DicomReader, file: bytes, changes: list[tuple[int, int]], end: int | None
) -> None:
    damaged = bytearray(file)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    try:
        radiograph = reader.read(bytes(damaged[:end]))
    except ImageError:
        return
    assert radiograph.ndim == 2
    assert radiograph.dtype == np.uint8


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_a_damaged_frame_does_not_cost_the_child(reader: DicomReader, syntax: UID) -> None:
    frame = lossless(grey(), syntax, 12)
    begun = children()
    for bit in [*range(0, 8 * 60, 3), *range(8 * 60, 8 * len(frame), 149)]:
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        # No checksum tells that other pixels are not those of the image.
        with suppress(UndecodableImage):
            reader.read(compressed(grey(), syntax, bytes(damaged), BitsStored=12))
    assert np.array_equal(reader.read(dicom(grey())), stretched(grey()))
    assert children() == begun


def begin(reader: DicomReader) -> int:
    """Have a first image read; the child that did it."""
    others = children()
    assert np.array_equal(reader.read(dicom(grey())), stretched(grey()))
    (pid,) = children() - others
    return pid


def test_a_killed_child_is_replaced(make_reader: Callable[..., DicomReader]) -> None:
    reader = make_reader()
    pid = begin(reader)
    os.kill(pid, signal.SIGKILL)
    assert begin(reader) != pid


def test_a_child_that_hangs_is_replaced(make_reader: Callable[..., DicomReader]) -> None:
    reader = make_reader(seconds=1)
    for side in (30, 500):  # the second is more than a pipe takes
        pid = begin(reader)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(UndecodableImage, match="longer than 1 s"):
            reader.read(dicom(np.zeros((side, side), np.uint16)))
        assert pid not in children()
    begin(reader)


def test_an_interrupted_image_is_not_mixed_up_with_the_next(
    make_reader: Callable[..., DicomReader],
) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    reader = make_reader()
    pid = begin(reader)
    os.kill(pid, signal.SIGSTOP)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(KeyboardInterrupt):
            reader.read(dicom(np.zeros((9, 9), np.uint16)))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert pid not in children()
    begin(reader)


def test_a_closed_reader_leaves_no_child(make_reader: Callable[..., DicomReader]) -> None:
    reader = make_reader()
    pid = begin(reader)
    reader.close()
    assert pid not in children()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_child_ends_with_its_service() -> None:
    script = (
        "import os, subprocess, sys\n"
        "from cxr_serving.images.dicom import DicomReader\n"
        "DicomReader(10**6, 20, 2**30).read(sys.stdin.buffer.read())\n"
        "subprocess.run(['pgrep', '-P', str(os.getpid()), '-f', 'cxr_serving.images.dicom'])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        input=dicom(grey()),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    process = Path(f"/proc/{int(ended.stdout)}/stat")
    deadline = time.monotonic() + 20
    # A container without an init leaves it as a zombie.
    while process.exists() and ") Z " not in process.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_a_image_that_takes_too_much_memory_is_rejected(
    make_reader: Callable[..., DicomReader],
) -> None:
    reader = make_reader(memory_bytes=200 * 2**20)
    begin(reader)
    # A few bytes that say that they are 64 million pixels of 16 bits.
    large = compressed(grey(), RLELossless, rle_frame([b"\0"] * 2), Rows=8000, Columns=8000)
    with pytest.raises(ImageTooLarge, match="more memory"):
        reader.read(large)
    # Four megabytes of runs, 256 unpacked, where a few kilobytes are due.
    bomb = compressed(grey(), RLELossless, rle_frame([b"\x81\x01" * 2**21] * 2))
    with pytest.raises(UndecodableImage, match="too much memory"):
        reader.read(bomb)
    assert np.array_equal(reader.read(dicom(grey())), stretched(grey()))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_child_is_small_and_knows_no_secret(
    make_reader: Callable[..., DicomReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_SECRET", "secret")
    process = Path(f"/proc/{begin(make_reader())}")
    assert b"SECRET" not in (process / "environ").read_bytes()
    assert "torch" not in (process / "maps").read_text()
    limits = (process / "limits").read_text()
    for name in ("core file size", "file size", "processes"):
        assert re.search(rf"^Max {name} +0 +0 ", limits, re.MULTILINE), limits


def test_threads_get_their_own_images(reader: DicomReader) -> None:
    radiographs = [grey(seed=seed) for seed in range(24)]
    with ThreadPoolExecutor(6) as pool:
        read = list(pool.map(lambda radiograph: reader.read(dicom(radiograph)), radiographs))
    for radiograph, pixels in zip(read, radiographs, strict=True):
        assert np.array_equal(radiograph, stretched(pixels))


def test_other_files_are_not_dicom() -> None:
    assert not is_dicom(b"")
    assert not is_dicom(image(grey(8, np.uint8), "PNG"))
