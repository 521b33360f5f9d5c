import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.image_utils import load_image

from cxr_serving.model.preprocessing import (
    Preprocessing,
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
    return preprocessing.normalise(torch.from_numpy(np.stack([preprocessing.decode(image).pixels])))


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
        preprocessing.decode(encode_image(image, "PNG")).pixels,
        preprocessing.decode(encode_image(grey, "PNG")).pixels,
    )


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
        preprocessing.decode(image).pixels.astype(int)
        - preprocessing.decode(upright).pixels.astype(int)
    )
    assert difference.max() <= 1


def test_sources_are_path_bytes_or_file(tmp_path: Path, image: bytes) -> None:
    path = tmp_path / "image.jpeg"
    path.write_bytes(image)
    preprocessing = Preprocessing(64)
    expected = preprocessing.decode(image).pixels
    assert expected.shape == (64, 64)
    assert expected.dtype == np.uint8
    np.testing.assert_array_equal(preprocessing.decode(path).pixels, expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(preprocessing.decode(file).pixels, expected)


def test_missing_file_is_not_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Preprocessing(64).decode(tmp_path / "none.jpeg")


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


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("shape", [(120, 150), (900, 1301)])
def test_a_coloured_jpeg_gives_the_luma_of_libjpeg(
    make_pixels: MakePixels, encode_image: Encode, shape: tuple[int, int], subsampling: int
) -> None:
    grey = make_pixels(*shape)
    colours = Image.fromarray(np.stack([grey, grey[::-1], grey[:, ::-1]], axis=2))
    image = encode_image(colours, "JPEG", quality=90, subsampling=subsampling)
    with Image.open(io.BytesIO(image)) as opened:
        drafted = opened.draft("L", (128, 128))
        assert drafted is not None
        luma = opened.resize((64, 64), Image.Resampling.BICUBIC, drafted[1])
    np.testing.assert_array_equal(Preprocessing(64).decode(image).pixels, np.asarray(luma))


def test_colour_says_how_coloured_a_file_is(make_pixels: MakePixels, encode_image: Encode) -> None:
    pixels = make_pixels(120, 150)
    grey = Image.fromarray(pixels)
    green = Image.fromarray(np.stack([pixels // 2, pixels, pixels // 2], axis=2))
    decode = Preprocessing(64).decode
    for file_format in ("JPEG", "PNG"):
        assert decode(encode_image(grey, file_format)).colour == 0
        assert decode(encode_image(grey.convert("RGB"), file_format)).colour < 0.02
        assert decode(encode_image(green, file_format)).colour == pytest.approx(0.25, abs=0.03)
    for mode, colour in (("LA", 0), ("RGBA", 0.25), ("P", 0.25)):
        converted = (green if colour else grey).convert(mode)
        assert decode(encode_image(converted, "PNG")).colour == pytest.approx(colour, abs=0.03)
