"""JPEG and PNG files whose metadata is wrong, and files that are something else."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_serving.model.preprocessing import (
    ImageError,
    Preprocessing,
    UndecodableImage,
    UnsupportedImage,
    header,
)

Encode = Callable[..., bytes]
NETWORK = Preprocessing(64)
SECRET = b"Mustermann^Max"


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """After SOI and JFIF."""
    return jpeg[:20] + b"".join(segments) + jpeg[20:]


def chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(name + body) if crc is None else crc
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)


def with_chunks(png: bytes, *chunks: bytes, at: int = 33) -> bytes:
    return png[:at] + b"".join(chunks) + png[at:]


@pytest.fixture(scope="module")
def png(make_pixels: Callable[[int, int], np.ndarray], encode_image: Encode) -> bytes:
    return encode_image(Image.fromarray(make_pixels(90, 120)), "PNG")


def exif(orientation: int, extra: bytes = b"") -> bytes:
    entry = struct.pack("<HHII", 0x0112, 3, 1, orientation)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + extra


@pytest.mark.parametrize(
    "metadata",
    [
        segment(0xE1, b"Exif\0\0" + bytes(8)),
        segment(0xE1, b"Exif\0\0" + SECRET),
        segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        segment(0xE1, b"Exif\0\0"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation>9"),
        segment(0xE0, b"JFIF\0"),
        segment(0xE0, b"JFXX\0" + SECRET),
        segment(0xE2, b"ICC_PROFILE\0\x05\x01" + SECRET),
        segment(0xE2, b"MPF\0" + SECRET),
        segment(0xED, b"Photoshop 3.0\x008BIM" + SECRET),
        segment(0xEE, b"Adobe"),
        segment(0xFE, SECRET),
        segment(0xE7, b""),
        b"\xff\xff\xff",
        SECRET,
    ],
)
def test_metadata_of_a_jpeg_changes_nothing(image: bytes, metadata: bytes) -> None:
    np.testing.assert_array_equal(
        NETWORK.decode(with_segments(image, metadata)).pixels, NETWORK.decode(image).pixels
    )


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"tEXt", b"Comment\0" + SECRET, crc=1),
        chunk(b"tEXt", b""),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0"),
        chunk(b"zTXt", b"Comment\0\0" + SECRET),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + SECRET),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  9\nxyz")),
        chunk(b"iCCP", b"profile\0\0" + SECRET),
        chunk(b"iCCP", b"profile"),
        chunk(b"eXIf", SECRET),
        chunk(b"pHYs", b"\1"),
        chunk(b"gAMA", b""),
        chunk(b"tRNS", b""),
        chunk(b"sBIT", b""),
        chunk(b"acTL", b""),
        chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", SECRET),
        chunk(b"prVt", SECRET),
    ],
)
def test_metadata_of_a_png_changes_nothing(png: bytes, metadata: bytes) -> None:
    expected = NETWORK.decode(png).pixels
    for changed in (with_chunks(png, metadata), with_chunks(png, metadata, at=len(png) - 12)):
        np.testing.assert_array_equal(NETWORK.decode(changed).pixels, expected)


def test_what_metadata_inflates_to_takes_no_memory(png: bytes) -> None:
    bomb = zlib.compress(bytes(2**26))
    file = with_chunks(
        png,
        chunk(b"iCCP", b"p\0\0" + bomb),
        chunk(b"zTXt", b"Comment\0\0" + bomb),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb),
    )
    expected = NETWORK.decode(png).pixels
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(NETWORK.decode(file).pixels, expected)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_an_image_ends_where_its_pixels_do(image: bytes, png: bytes, encode_image: Encode) -> None:
    for whole in (image, png):
        np.testing.assert_array_equal(
            NETWORK.decode(whole + SECRET * 99).pixels, NETWORK.decode(whole).pixels
        )
    for end in (b"", chunk(b"tEXt", b"Comment\0" + SECRET)[:-9]):
        np.testing.assert_array_equal(
            NETWORK.decode(png[:-12] + end).pixels, NETWORK.decode(png).pixels
        )


def test_a_phones_preview_is_not_an_animation(image: bytes, encode_image: Encode) -> None:
    with Image.open(io.BytesIO(image)) as picture:
        phone = encode_image(
            picture, "MPO", save_all=True, append_images=[picture.resize((40, 30))], quality=95
        )
        alone = encode_image(picture, "JPEG", quality=95)
    np.testing.assert_array_equal(NETWORK.decode(phone).pixels, NETWORK.decode(alone).pixels)


def test_several_frames_are_unsupported_and_one_is_read(png: bytes) -> None:
    frames = chunk(b"acTL", struct.pack(">II", 2, 0))
    with pytest.raises(UnsupportedImage, match="animated"):
        header(with_chunks(png, frames))


@pytest.mark.parametrize("damage", [SECRET, b"", bytes(7)])
def test_orientation_survives_what_is_broken_around_it(
    image: bytes, png: bytes, damage: bytes
) -> None:
    for file, turned in (
        (image, with_segments(image, segment(0xFE, damage), segment(0xE1, exif(6, damage)))),
        (png, with_chunks(png, chunk(b"tEXt", damage, crc=1), chunk(b"eXIf", exif(6, damage)[6:]))),
    ):
        np.testing.assert_array_equal(
            NETWORK.decode(turned).pixels, np.rot90(NETWORK.decode(file).pixels, -1)
        )


def test_orientation_is_found_where_other_programs_write_it(image: bytes, png: bytes) -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    profile = zlib.compress(b"\nexif\n      40\n" + exif(3).hex().encode() + b"\n")
    for file, turned in (
        (image, with_segments(image, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))),
        (png, with_chunks(png, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))),
        (png, with_chunks(png, chunk(b"zTXt", b"Raw profile type exif\0\0" + profile))),
    ):
        np.testing.assert_array_equal(
            NETWORK.decode(turned).pixels, np.rot90(NETWORK.decode(file).pixels, 2)
        )


@pytest.mark.parametrize(
    ("marker", "bits", "named"),
    [
        (0xC1, 12, "12-bit JPEG"),
        (0xC3, 12, "lossless JPEG"),
        (0xC3, 8, "lossless JPEG"),
        (0xC5, 8, "hierarchical JPEG"),
        (0xCB, 16, "lossless JPEG"),
        (0xF7, 8, "JPEG-LS"),
    ],
)
def test_a_kind_of_jpeg_that_is_not_read_is_named(
    image: bytes, marker: int, bits: int, named: str
) -> None:
    frame = image.index(b"\xff\xc0")
    other = image[: frame + 1] + bytes([marker]) + image[frame + 2 : frame + 4]
    with pytest.raises(UnsupportedImage, match=f"{named}.* save it as"):
        NETWORK.decode(other + bytes([bits]) + image[frame + 5 :])


@pytest.mark.parametrize("mode", ["CMYK", "YCCK", "RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_colours_of_a_jpeg_are_read_as_before(
    make_pixels: Callable[[int, int], np.ndarray],
    encode_image: Encode,
    mode: str,
    progressive: bool,
) -> None:
    grey = Image.fromarray(make_pixels(96, 96))
    stored = grey.convert("RGB").convert("CMYK") if mode in ("CMYK", "YCCK") else grey.convert(mode)
    file = encode_image(stored, "JPEG", quality=95, progressive=progressive)
    if mode == "YCCK":  # the Adobe segment alone says so: it must not be taken for metadata
        where = file.index(b"Adobe") + 11
        file = file[:where] + b"\2" + file[where + 1 :]
    with Image.open(io.BytesIO(file)) as image:
        image.draft("L", (128, 128))
        expected = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(NETWORK.decode(file).pixels, expected)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "BMP", "JPEG2000", "AVIF"])
def test_another_format_is_named(
    make_pixels: Callable[[int, int], np.ndarray], encode_image: Encode, form: str
) -> None:
    file = encode_image(Image.fromarray(make_pixels(64, 64)), form)
    name = {"JPEG2000": "JPEG 2000", "WEBP": "WebP"}.get(form, form)
    with pytest.raises(UnsupportedImage, match=f"not a JPEG, PNG or DICOM file: it is a {name}"):
        NETWORK.decode(file)
    with pytest.raises(UnsupportedImage, match="it is a HEIC"):
        NETWORK.decode(b"\0\0\0\x18ftypheic" + bytes(99))
    with pytest.raises(UnsupportedImage, match=r"^not a JPEG, PNG or DICOM file$"):
        NETWORK.decode(SECRET)


def test_truncated_files_are_undecodable(image: bytes, png: bytes) -> None:
    for file in (image, png):
        for end in range(12, len(file) - 20, len(file) // 60):
            with pytest.raises(UndecodableImage, match=r"truncated"):
                NETWORK.decode(file[:end])


def test_endless_parts_are_not_walked(png: bytes) -> None:
    with pytest.raises(UndecodableImage, match="too many chunks"):
        header(with_chunks(png, chunk(b"tEXt", b"") * 70_000))
    for filler in (segment(0xFE, b""), b"\xff\xd0", b"\xff\0", b"\xff"):
        with pytest.raises(UndecodableImage, match="truncated"):
            header(b"\xff\xd8\xff\xe7\0\2" + filler * 200_000)


def message(file: bytes) -> str:
    try:
        NETWORK.decode(file)
    except ImageError as error:
        return str(error)
    return ""


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_byte_of_a_file_is_in_a_message(data: st.DataObject, image: bytes, png: bytes) -> None:
    damaged = bytearray(data.draw(st.sampled_from([image, png])))
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, 700))
        damaged[where : where + len(SECRET)] = SECRET
    said = message(bytes(damaged))
    assert not any(SECRET[at : at + 4].decode() in said for at in range(len(SECRET) - 3))
