"""Images that are rejected: blank, too large, damaged, or of another format."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_serving.model.preprocessing import (
    ImageError,
    ImageTooLarge,
    Preprocessing,
    UndecodableImage,
    UnsupportedImage,
)

MakePixels = Callable[[int, int], np.ndarray]
Encode = Callable[..., bytes]


def blanks(make_pixels: MakePixels) -> dict[str, Image.Image]:
    grey = make_pixels(90, 120)
    marked = np.zeros((90, 120), np.uint8)
    marked[5:20, 5:25] = 255  # a side marker
    return {
        **{f"only {shade}": Image.new("L", (120, 90), shade) for shade in (0, 7, 128, 255)},
        "12 bits taken for 16": Image.fromarray(grey >> 4),
        "14 bits taken for 16": Image.fromarray(grey >> 2),
        "nearly white": Image.fromarray(255 - (grey >> 5)),
        "a marker on black": Image.fromarray(marked),
        "white in colour": Image.new("RGB", (120, 90), "white"),
        "12 bits in 16, in upper values": Image.fromarray(grey.astype(np.uint16) * 16 + 32_768),
    }


@pytest.mark.parametrize("name", blanks(lambda height, width: np.zeros((height, width), np.uint8)))
def test_blank_or_nearly_blank_images_are_rejected(
    make_pixels: MakePixels, encode_image: Encode, name: str
) -> None:
    image = blanks(make_pixels)[name]
    said = r"blank or nearly so.* send one that"
    with pytest.raises(UndecodableImage, match=said):
        Preprocessing(64).decode(encode_image(image, "PNG"))
    if image.mode != "I;16":
        with pytest.raises(UndecodableImage, match=said):
            Preprocessing(64).decode(encode_image(image, "JPEG"))
        with pytest.raises(UndecodableImage, match=said):
            Preprocessing(64).resize(np.asarray(image.convert("L")))


def test_low_contrast_is_read_as_it_is(make_pixels: MakePixels, encode_image: Encode) -> None:
    grey = make_pixels(64, 64)
    for dim in (grey // 2, grey // 4 + 40, 255 - grey // 4):
        image = encode_image(Image.fromarray(dim.astype(np.uint8)), "PNG")
        np.testing.assert_array_equal(Preprocessing(64).decode(image).pixels, dim)


def test_no_real_radiograph_counts_as_blank() -> None:
    """Nor for nearly blank: each is four times as far from it as need be."""
    folder = Path(__file__).parents[4] / "shared" / "radiographs" / "chest_xray"
    if not folder.is_dir():
        pytest.skip(f"no radiographs in {folder}")
    for path in sorted(folder.rglob("*.jpeg"))[::40]:
        with Image.open(path) as image:
            grey = np.asarray(image)
        Preprocessing(32).resize(grey // 4 + 64)


def test_gif_and_animated_png_are_unsupported(
    make_pixels: MakePixels, encode_image: Encode
) -> None:
    picture = Image.fromarray(make_pixels(64, 64))
    for image in (
        encode_image(picture, "GIF"),
        encode_image(picture, "PNG", save_all=True, append_images=[picture.rotate(90)]),
        b"not an picture",
    ):
        with pytest.raises(UnsupportedImage):
            Preprocessing(64).decode(image)


def test_pixels_are_capped_before_decoding(make_pixels: MakePixels, encode_image: Encode) -> None:
    image = encode_image(Image.fromarray(make_pixels(80, 120)), "PNG")
    with pytest.raises(ImageTooLarge, match="120 x 80 pixels; at most 9,599"):
        Preprocessing(64).decode(image, max_pixels=9_599)
    assert Preprocessing(64).decode(image, max_pixels=9_600).pixels.shape == (64, 64)


def test_a_second_header_does_not_lift_the_cap(
    make_pixels: MakePixels, encode_image: Encode
) -> None:
    png = encode_image(Image.fromarray(make_pixels(80, 120)), "PNG")
    large = encode_image(Image.new("L", (6000, 6000)), "PNG")
    with pytest.raises(UndecodableImage, match="several headers"):
        Preprocessing(64).decode(png[:33] + large[8:])


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_give_an_image_or_an_image_error(data: st.DataObject, image: bytes) -> None:
    damaged = bytearray(image)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(damaged) - 1) | st.integers(0, 300))
        damaged[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(damaged)))
    with contextlib.suppress(ImageError):
        assert Preprocessing(32).decode(bytes(damaged[:cut])).pixels.shape == (32, 32)


def test_truncated_jpeg_is_undecodable(image: bytes) -> None:
    with pytest.raises(UndecodableImage, match="truncated"):
        Preprocessing(64).decode(image[: len(image) // 2])
