"""What is rejected, with a message that helps and names nobody."""

import struct
import zlib
from collections.abc import Callable
from functools import partial

import dicoms
import numpy as np
import pytest
from dicoms import (
    HEIGHT,
    RAMP,
    WIDTH,
    compressed,
    dicom,
    grey,
    image,
    lossless,
    lut,
    rle_frame,
    stretched,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
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


def record(**elements: object) -> bytes:
    """A file without an image."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.88.11",
        generate_uid(),
    )
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dicoms.encode(dataset)


def directory() -> bytes:
    """The DICOMDIR of a disc."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MediaStorageDirectoryStorage, generate_uid()
    dataset.FileSetID = "DISC"
    dataset.DirectoryRecordSequence = Sequence([])
    return dicoms.encode(dataset)


def bomb() -> bytes:
    """Half a megabyte, which is more than the largest image when it is inflated."""
    plain, other = dicom(grey()), dicom(grey(), DeflatedExplicitVRLittleEndian)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflater.compress(plain[_behind_meta_information(plain) :])
    packed += b"".join(deflater.compress(bytes(2**20)) for _ in range(150)) + deflater.flush()
    return other[: _behind_meta_information(other)] + packed


def _behind_meta_information(file: bytes) -> int:
    # Its first element holds the length of the others, and identifiers differ in length.
    return 144 + int.from_bytes(file[140:144], "little")


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
    return partial(dicom, RAMP, BitsStored=12, **elements)


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
def test_rejections_say_why_and_name_no_patient(
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
def test_elements_that_devices_add_are_skipped(reader: DicomReader, data: bytes) -> None:
    assert np.array_equal(reader.read(data), stretched(grey()))
