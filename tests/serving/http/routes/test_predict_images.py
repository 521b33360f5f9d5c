"""Which images POST /predict accepts and rejects."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from answers import assert_error
from dicoms import dicom
from PIL import Image

MakePixels = Callable[[int, int], np.ndarray]
Encode = Callable[..., bytes]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("L", "JPEG"),
        ("RGB", "JPEG"),
        ("CMYK", "JPEG"),
        ("L", "PNG"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
    ],
)
def test_images_of_every_mode_are_answered(
    ready_server: Any, make_pixels: MakePixels, encode_image: Encode, mode: str, file_format: str
) -> None:
    image = encode_image(Image.fromarray(make_pixels(90, 120)).convert(mode), file_format)
    answer = ready_server.predict(image)
    assert answer.status_code == 200, answer.text
    assert sum(answer.json()["probs"]) == pytest.approx(1, abs=1e-5)


def test_deep_and_rotated_images_are_the_images_they_show(
    ready_server: Any, make_pixels: MakePixels, encode_image: Encode
) -> None:
    grey = make_pixels(90, 120)
    plain = ready_server.predict(encode_image(Image.fromarray(grey), "PNG")).json()["probs"]
    deep = encode_image(Image.fromarray(grey.astype(np.uint16) * 256), "PNG")
    assert ready_server.predict(deep).json()["probs"] == plain
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned 90 degrees clockwise
    turned = Image.fromarray(np.rot90(grey))
    rotated = ready_server.predict(encode_image(turned, "PNG", exif=exif)).json()["probs"]
    assert rotated == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize(
    "image", [b"a text, not an image", b"%PDF-1.7\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_what_is_no_image_is_415(ready_server: Any, image: bytes) -> None:
    assert_error(ready_server.predict(image), 415, "unsupported_image")


def test_other_image_formats_are_415(
    ready_server: Any, make_pixels: MakePixels, encode_image: Encode
) -> None:
    picture = Image.fromarray(make_pixels(64, 64))
    for image in (
        encode_image(picture, "GIF"),
        encode_image(picture, "BMP"),
        encode_image(picture, "TIFF"),
        encode_image(picture, "WEBP"),
        encode_image(picture, "PNG", save_all=True, append_images=[picture.rotate(90)]),
    ):
        assert_error(ready_server.predict(image), 415, "unsupported_image")


def test_truncated_images_are_400(ready_server: Any, image: bytes, encode_image: Encode) -> None:
    assert_error(ready_server.predict(image[: len(image) // 2]), 400, "undecodable_image")
    png = encode_image(Image.effect_noise((100, 100), 50), "PNG")
    assert_error(ready_server.predict(png[: len(png) // 2]), 400, "undecodable_image")


@pytest.mark.parametrize("size", [(100_000, 100_000), (8_001, 4_000), (2**31 - 1, 2**31 - 1)])
def test_bomb_is_413(ready_server: Any, size: tuple[int, int]) -> None:
    assert_error(ready_server.predict(bomb(*size)), 413, "too_many_pixels")


def test_largest_detector_is_answered_by_default(guarded: Any) -> None:
    """17 x 17 inches of 0.1 mm, 16 bits a pixel: 36 MB in a DICOM file, uncompressed."""
    grey = (np.arange(4248) // 2)[:, np.newaxis] + np.arange(4248, dtype=np.uint16)
    image = dicom(grey.astype(np.uint16), BitsStored=13)
    assert len(image) > 36_000_000
    answer = guarded.client.post("/predict", files={"file": image}, headers=guarded.headers)
    assert answer.status_code == 200, answer.text
    answer = guarded.client.post(
        "/predict/batch",
        files=[("file", image), ("file", image[:1000])],
        headers=guarded.headers,
    )
    first, second = answer.json()["results"]
    assert first["error"] is None
    assert second["error"]["code"] == "undecodable_image"


def test_empty_file_is_400(ready_server: Any) -> None:
    assert_error(ready_server.predict(b""), 400, "undecodable_image")
