"""Grey levels of PNGs with more than 8 bits."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from cxr_serving.model.preprocessing import (
    Preprocessing,
    UndecodableImage,
    stored_bits,
)

MakePixels = Callable[[int, int], np.ndarray]
Encode = Callable[..., bytes]


def test_16_bit_png_is_scaled_not_clipped(make_pixels: MakePixels, encode_image: Encode) -> None:
    grey = make_pixels(90, 120)
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 77)
    preprocessing = Preprocessing(64)
    np.testing.assert_array_equal(
        preprocessing.decode(encode_image(deep, "PNG")).pixels,
        preprocessing.decode(encode_image(Image.fromarray(grey), "PNG")).pixels,
    )


def png16(pixels: np.ndarray, significant: int | None = None) -> bytes:
    """A 16-bit PNG of values as they are, with an sBIT chunk where ``significant`` is given."""
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint16)).save(stream, "PNG")
    png = stream.getvalue()
    if significant is None:
        return png
    body = b"sBIT" + bytes([significant])
    return png[:33] + b"\0\0\0\1" + body + zlib.crc32(body).to_bytes(4, "big") + png[33:]


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_16_bit_png_is_scaled_by_the_bits_it_holds(
    make_pixels: MakePixels, encode_image: Encode, bits: int, declared: bool
) -> None:
    grey = make_pixels(90, 120)
    grey[0, 0] = 255
    expected = Preprocessing(64).decode(encode_image(Image.fromarray(grey), "PNG")).pixels
    held = png16(grey.astype(int) << (bits - 8), bits if declared else None)
    np.testing.assert_array_equal(Preprocessing(64).decode(held).pixels, expected)
    # As the standard wants it: shifted to 16 bits, and said to be significant.
    shifted = png16(grey.astype(int) << 8, bits if declared else None)
    np.testing.assert_array_equal(Preprocessing(64).decode(shifted).pixels, expected)


@pytest.mark.parametrize(
    ("most", "declared", "bits"),
    [
        *((255, 16, 8), (256, 16, 10), (1023, 16, 10), (3000, 16, 12), (4095, 16, 12)),
        *((4096, 16, 14), (16_383, 16, 14), (16_384, 16, 16), (40_000, 16, 16), (65_535, 16, 16)),
        # What is declared wins where it agrees; a larger value is shifted, as the standard wants.
        *((900, 12, 12), (4095, 12, 12), (4096, 12, 16), (65_520, 12, 16), (3, 1, 16), (1, 1, 8)),
    ],
)
def test_bits_are_established_by_declaration_and_largest_value(
    most: int, declared: int, bits: int
) -> None:
    assert stored_bits(most, declared) == bits


@pytest.mark.parametrize("top", [64_000, 40_000, 25_000])
def test_16_bits_that_are_merely_dark_stay_as_they_are(make_pixels: MakePixels, top: int) -> None:
    values = make_pixels(90, 120) / 255 * top
    values[0, 0] = top
    decoded = Preprocessing(64).decode(png16(values)).pixels
    assert abs(int(decoded.max()) - top * 0.85 / 256) < 10


def test_16_bits_in_colour_that_hold_fewer_are_rejected(make_pixels: MakePixels) -> None:
    """Pillow keeps the upper 8 bits of such a PNG: 14 bits end at 63, 12 at 15."""
    grey = make_pixels(90, 120)
    header = b"IHDR" + struct.pack(">IIBBBBB", 120, 90, 16, 2, 0, 0, 0)

    def png(values: np.ndarray) -> bytes:
        lines = np.repeat(values.astype(">u2")[:, :, np.newaxis], 3, axis=2).reshape(90, -1)
        pixels = b"IDAT" + zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            (len(part) - 4).to_bytes(4, "big") + part + zlib.crc32(part).to_bytes(4, "big")
            for part in (header, pixels, b"IEND")
        )

    preprocessing = Preprocessing(64)
    assert preprocessing.decode(png(grey.astype(int) * 257)).pixels.max() > 180
    for bits in (8, 10, 12, 14):
        with pytest.raises(UndecodableImage, match="blank or nearly so"):
            preprocessing.decode(png(grey.astype(int) << (bits - 8)))
