import contextlib
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor
from transformers.image_utils import load_image

from cxr_serving.model.preprocessing import (
    ImageError,
    ImageTooLarge,
    Preprocessing,
    UndecodableImage,
    UnsupportedImage,
    stored_bits,
)

MakePixels = Callable[[int, int], np.ndarray]
Encode = Callable[..., bytes]

GREY_LEVEL = 1 / 255 / 0.229  # of one grey level after normalising, in the channel least affected


def processed_by_transformers(
    preprocessing: Preprocessing, image: Image.Image, directory: Path
) -> torch.Tensor:
    preprocessing.write(directory)
    processor = AutoImageProcessor.from_pretrained(directory)
    pixel_values: torch.Tensor = processor(images=image, return_tensors="pt")["pixel_values"]
    return pixel_values


def normalised(preprocessing: Preprocessing, image: bytes) -> torch.Tensor:
    return preprocessing.normalise(torch.from_numpy(np.stack([preprocessing.decode(image)])))


@pytest.mark.parametrize("shape", [(120, 150), (64, 64), (40, 30), (900, 1301)])
def test_png_gives_the_pixels_of_transformers(
    tmp_path: Path, make_pixels: MakePixels, encode_image: Encode, shape: tuple[int, int]
) -> None:
    image = encode_image(Image.fromarray(make_pixels(*shape)), "PNG")
    preprocessing = Preprocessing(64)
    expected = processed_by_transformers(
        preprocessing, load_image(Image.open(io.BytesIO(image))), tmp_path
    )
    torch.testing.assert_close(normalised(preprocessing, image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("shape", [(1703, 2101), (2048, 1000)])
def test_large_jpeg_is_close_to_the_pixels_of_transformers(
    tmp_path: Path, make_pixels: MakePixels, encode_image: Encode, shape: tuple[int, int], size: int
) -> None:
    """Draft mode scales inside the JPEG's DCT: 0.5 grey levels on average, at most 4."""
    image = encode_image(Image.fromarray(make_pixels(*shape)), "JPEG", quality=95)
    preprocessing = Preprocessing(size)
    expected = processed_by_transformers(
        preprocessing, load_image(Image.open(io.BytesIO(image))), tmp_path
    )
    difference = (normalised(preprocessing, image) - expected).abs()
    assert difference.mean() < 0.5 * GREY_LEVEL
    assert difference.max() < 4.5 * GREY_LEVEL


def test_real_images_give_the_pixels_of_transformers(tmp_path: Path) -> None:
    folder = Path(__file__).parents[4] / "shared" / "radiographs" / "chest_xray" / "test" / "NORMAL"
    if not folder.is_dir():
        pytest.skip(f"no radiographs in {folder}")
    preprocessing = Preprocessing(96)
    for path in sorted(folder.iterdir())[:5]:
        expected = processed_by_transformers(preprocessing, load_image(str(path)), tmp_path)
        torch.testing.assert_close(
            normalised(preprocessing, path.read_bytes()), expected, rtol=0, atol=1.5 * GREY_LEVEL
        )


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_every_png_mode_shows_the_same_image(
    make_pixels: MakePixels, encode_image: Encode, mode: str
) -> None:
    grey = Image.fromarray(np.where(make_pixels(90, 120) > 127, 255, 0).astype(np.uint8))
    image = grey.quantize(2) if mode == "P" else grey.convert(mode, dither=Image.Dither.NONE)
    preprocessing = Preprocessing(64)
    np.testing.assert_array_equal(
        preprocessing.decode(encode_image(image, "PNG")),
        preprocessing.decode(encode_image(grey, "PNG")),
    )


def test_16_bit_png_is_scaled_not_clipped(make_pixels: MakePixels, encode_image: Encode) -> None:
    grey = make_pixels(90, 120)
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 77)
    preprocessing = Preprocessing(64)
    np.testing.assert_array_equal(
        preprocessing.decode(encode_image(deep, "PNG")),
        preprocessing.decode(encode_image(Image.fromarray(grey), "PNG")),
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
    expected = Preprocessing(64).decode(encode_image(Image.fromarray(grey), "PNG"))
    held = png16(grey.astype(int) << (bits - 8), bits if declared else None)
    np.testing.assert_array_equal(Preprocessing(64).decode(held), expected)
    # As the standard wants it: shifted to 16 bits, and said to be significant.
    shifted = png16(grey.astype(int) << 8, bits if declared else None)
    np.testing.assert_array_equal(Preprocessing(64).decode(shifted), expected)


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
    decoded = Preprocessing(64).decode(png16(values))
    assert abs(int(decoded.max()) - top * 0.85 / 256) < 10


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
    assert preprocessing.decode(png(grey.astype(int) * 257)).max() > 180
    for bits in (8, 10, 12, 14):
        with pytest.raises(UndecodableImage, match="blank or nearly so"):
            preprocessing.decode(png(grey.astype(int) << (bits - 8)))


def test_low_contrast_is_read_as_it_is(make_pixels: MakePixels, encode_image: Encode) -> None:
    grey = make_pixels(64, 64)
    for dim in (grey // 2, grey // 4 + 40, 255 - grey // 4):
        image = encode_image(Image.fromarray(dim.astype(np.uint8)), "PNG")
        np.testing.assert_array_equal(Preprocessing(64).decode(image), dim)


def test_no_real_radiograph_counts_as_blank() -> None:
    """Nor for nearly blank: each is four times as far from it as need be."""
    folder = Path(__file__).parents[4] / "shared" / "radiographs" / "chest_xray"
    if not folder.is_dir():
        pytest.skip(f"no radiographs in {folder}")
    for path in sorted(folder.rglob("*.jpeg"))[::40]:
        with Image.open(path) as image:
            grey = np.asarray(image)
        Preprocessing(32).resize(grey // 4 + 64)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    make_pixels: MakePixels, encode_image: Encode, orientation: int, file_format: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encode_image(Image.fromarray(make_pixels(80, 120)), file_format, exif=exif)
    upright = encode_image(load_image(Image.open(io.BytesIO(image))).convert("L"), "PNG")
    preprocessing = Preprocessing(64)
    difference = np.abs(
        preprocessing.decode(image).astype(int) - preprocessing.decode(upright).astype(int)
    )
    assert difference.max() <= 1


def test_sources_are_path_bytes_or_file(tmp_path: Path, image: bytes) -> None:
    path = tmp_path / "image.jpeg"
    path.write_bytes(image)
    preprocessing = Preprocessing(64)
    expected = preprocessing.decode(image)
    assert expected.shape == (64, 64)
    assert expected.dtype == np.uint8
    np.testing.assert_array_equal(preprocessing.decode(path), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(preprocessing.decode(file), expected)


def test_missing_file_is_not_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Preprocessing(64).decode(tmp_path / "none.jpeg")


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
    assert Preprocessing(64).decode(image, max_pixels=9_600).shape == (64, 64)


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
        assert Preprocessing(32).decode(bytes(damaged[:cut])).shape == (32, 32)


def test_truncated_jpeg_is_undecodable(image: bytes) -> None:
    with pytest.raises(UndecodableImage, match="truncated"):
        Preprocessing(64).decode(image[: len(image) // 2])


def test_normalise_takes_augmented_floats() -> None:
    images = torch.randint(0, 256, (2, 8, 8), dtype=torch.uint8)
    preprocessing = Preprocessing(8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    result = preprocessing.normalise(images)
    assert result.shape == (2, 3, 8, 8)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, preprocessing.normalise(images.float()))
    torch.testing.assert_close(result[:, 1], (images / 255 - 0.2) / 0.25)


def test_read_gives_back_what_was_written(tmp_path: Path) -> None:
    preprocessing = Preprocessing(96, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    preprocessing.write(tmp_path)
    assert Preprocessing.read(tmp_path) == preprocessing


@pytest.mark.parametrize(
    "change", [{"do_center_crop": True}, {"resample": 2}, {"do_normalize": False}]
)
def test_read_rejects_another_preprocessing(tmp_path: Path, change: dict[str, object]) -> None:
    Preprocessing(96).write(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="does not do"):
        Preprocessing.read(tmp_path)
