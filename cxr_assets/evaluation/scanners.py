"""Simulated scanners: what another machine, or another hand on it, makes of the same chest.

They test a trained model, and are no part of the augmentation of training: their strengths are
fixed here, whatever a recipe varies. Lengths are shares of the side of the image, so that they mean
the same at every size.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
# One image uint8 [size, size] to another; the generator depends on the content of the image.
Change = Callable[[Pixels, np.random.Generator], Pixels]

# Where no source is named, a strength was chosen by eye, at 96 and 224 pixels: the change is seen
# at once, and the image can still be read.
# Tone: sRGB (IEC 61966-2-1) taken for linear light would be a gamma of about 2.2.
_GAMMA = 1.6
# Of a hyperbolic tangent, which is 1.66 times as steep in the middle as a straight line.
_STEEPNESS = 3.0
# Contrast-limited adaptive histogram equalisation (Zuiderveld 1994, Graphics Gems IV, VIII.5) with
# the tiles and the limit, in means of a histogram, of the example in OpenCV's documentation.
_TILES, _LIMIT = 8, 2.0
# What is smoother than this, and the weight of its difference to the image, or to the mean: vendors
# enhance local contrast and compress the dynamic range (Prokop et al. 2003, J Thorac Imaging 18).
_SMOOTH, _ENHANCED, _EVENED = 1 / 16, 1.0, 0.5
# Unsharp mask of 2 of 224 pixels, at which halos begin to show.
_EDGE, _SHARPENED = 2 / 224, 1.5
# Gaussian of 1.5 of 224 pixels: fine vessels are lost, larger ones are not.
_BLUR = 1.5 / 224
# Half the mildest noise, and the mildest JPEG, of Hendrycks & Dietterich 2019 (arXiv 1903.12261),
# which are made for photographs.
_NOISE, _QUALITY = 0.04 * 255, 25
# Share of the side that the collimator shadows on each side.
_SHADOW = (0.03, 0.08)
# Heights of the letter that says the side and of small text, as shares of the side.
_LETTER, _TEXT = 1 / 10, 1 / 20
_INK = 235


@dataclass(frozen=True)
class Scanner:
    """One kind of change.

    Attributes:
        description: what it does, in words.
        change: of one image.
    """

    description: str
    change: Change


def scan(name: str, images: Pixels) -> Pixels:
    """What the scanner ``name`` of ``SCANNERS`` makes of images.

    What is random depends on the image alone, so that an image is changed in the same way whatever
    is beside it, and whenever.

    Args:
        name: of the scanner.
        images: uint8 [N, size, size].

    Returns:
        uint8 [N, size, size].
    """
    change = SCANNERS[name].change
    return np.stack(
        [change(image, np.random.default_rng(zlib.crc32(image.tobytes()))) for image in images]
    )


def _toned(curve: Callable[[Floats], Floats]) -> Change:
    """A curve from 0..1 to 0..1 on all grey levels."""
    levels = _grey(255 * curve(np.linspace(0, 1, 256)))
    return lambda image, rng: levels[image]


def _steep(levels: Floats) -> Floats:
    curve: Floats = 0.5 + np.tanh((levels - 0.5) * _STEEPNESS) / (2 * np.tanh(_STEEPNESS / 2))
    return curve


def _flat(levels: Floats) -> Floats:
    """The inverse of :func:`_steep`."""
    curve: Floats = 0.5 + np.arctanh((2 * levels - 1) * np.tanh(_STEEPNESS / 2)) / _STEEPNESS
    return curve


def _filtered(image: Pixels, kind: Callable[[float], ImageFilter.Filter], radius: float) -> Pixels:
    return np.asarray(Image.fromarray(image).filter(kind(radius * len(image))))


def _enhanced(image: Pixels, rng: np.random.Generator) -> Pixels:
    surroundings = _filtered(image, ImageFilter.GaussianBlur, _SMOOTH).astype(float)
    return _grey(image + _ENHANCED * (image - surroundings))


def _evened(image: Pixels, rng: np.random.Generator) -> Pixels:
    surroundings = _filtered(image, ImageFilter.GaussianBlur, _SMOOTH).astype(float)
    return _grey(image - _EVENED * (surroundings - surroundings.mean()))


def _sharpened(image: Pixels, rng: np.random.Generator) -> Pixels:
    return _filtered(
        image, lambda radius: ImageFilter.UnsharpMask(radius, round(100 * _SHARPENED), 0), _EDGE
    )


def _blurred(image: Pixels, rng: np.random.Generator) -> Pixels:
    return _filtered(image, ImageFilter.GaussianBlur, _BLUR)


def _equalised(image: Pixels, rng: np.random.Generator) -> Pixels:
    size = len(image)
    tile = (np.arange(size) * _TILES) // size
    number = tile[:, None] * _TILES + tile
    counts = np.bincount((number * 256 + image).ravel(), minlength=_TILES**2 * 256)
    histograms = counts.reshape(-1, 256) / np.bincount(number.ravel())[:, None]
    excess = (histograms - _LIMIT / 256).clip(0)
    limited = histograms - excess + excess.sum(axis=1, keepdims=True) / 256
    tables = 255 * limited.cumsum(axis=1).reshape(_TILES, _TILES, 256)
    # Between the centres of the tiles, their tables are interpolated bilinearly.
    place = ((np.arange(size) + 0.5) * _TILES / size - 0.5).clip(0, _TILES - 1)
    low = place.astype(int).clip(0, _TILES - 2)
    weight = place - low
    rows = [(low[:, None] + one, abs(1 - one - weight)[:, None]) for one in (0, 1)]
    columns = [(low[None] + one, abs(1 - one - weight)[None]) for one in (0, 1)]
    return _grey(
        sum(
            tables[row, column, image] * of_row * of_column
            for row, of_row in rows
            for column, of_column in columns
        )
    )


def _noisy(image: Pixels, rng: np.random.Generator) -> Pixels:
    return _grey(image + rng.normal(0, _NOISE, image.shape))


def _compressed(image: Pixels, rng: np.random.Generator) -> Pixels:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_QUALITY)
    return np.asarray(Image.open(file))


def _collimated(image: Pixels, rng: np.random.Generator) -> Pixels:
    top, bottom, left, right = (len(image) * rng.uniform(*_SHADOW, 4)).round().astype(int).clip(1)
    changed = np.zeros_like(image)
    changed[top:-bottom, left:-right] = image[top:-bottom, left:-right]
    return changed


def _marked(image: Pixels, rng: np.random.Generator) -> Pixels:
    size, picture = len(image), Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    letter, text = (ImageFont.load_default(share * size) for share in (_LETTER, _TEXT))
    left, margin = bool(rng.integers(2)), size * rng.uniform(0.02, 0.06)
    # The patient's right side is on the left of the image.
    at = (margin if left else size - margin, margin)
    draw.text(at, "R" if left else "L", _INK, letter, "lt" if left else "rt")
    written = f"AP {rng.integers(60, 126)}kV {rng.integers(24):02}:{rng.integers(60):02}"
    draw.text((size - margin, size - margin), written, _INK, text, "rb")
    return np.asarray(picture)


def _grey(values: Floats) -> Pixels:
    return np.rint(values).clip(0, 255).astype(np.uint8)


SCANNERS: Mapping[str, Scanner] = {
    "darker": Scanner("gamma 1.6", _toned(lambda levels: levels**_GAMMA)),
    "brighter": Scanner("gamma 1/1.6", _toned(lambda levels: levels ** (1 / _GAMMA))),
    "higher_contrast": Scanner("an S-curve of the grey levels", _toned(_steep)),
    "lower_contrast": Scanner("the inverse of this S-curve", _toned(_flat)),
    "adaptive_equalisation": Scanner("the histogram of each region evened out (CLAHE)", _equalised),
    "local_contrast": Scanner("differences to the surroundings doubled", _enhanced),
    "dynamic_range": Scanner("differences between regions halved", _evened),
    "sharpened": Scanner("edges enhanced by an unsharp mask", _sharpened),
    "blurred": Scanner("a Gaussian of 1.5 of 224 pixels", _blurred),
    "noisy": Scanner("Gaussian noise of 4 % of the range", _noisy),
    "jpeg": Scanner("compressed at quality 25", _compressed),
    "collimated": Scanner("black borders of 3 to 8 % on each side", _collimated),
    "text_markers": Scanner("L or R in a corner, and a line of small text", _marked),
}
