"""Images that a model should not answer: altered versions of radiographs, and synthetic pictures.

The gate learns from some of them, on training images; the report and a benchmark count what it
rejects, on others.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from cxr_serving.model.gate import Reason

Images = npt.NDArray[np.uint8]
# From images uint8 [N, size, size] to as many of the same shape.
Alteration = Callable[[Images, np.random.Generator], Images]


def _each(change: Callable[[Image.Image, np.random.Generator], Image.Image]) -> Alteration:
    def alter(images: Images, rng: np.random.Generator) -> Images:
        return np.stack([np.asarray(change(Image.fromarray(one), rng)) for one in images])

    return alter


def _turned(quarters: int) -> Alteration:
    return lambda images, rng: np.rot90(images, -quarters, (1, 2)).copy()


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A part with a third to a half of the sides."""
    side = image.width * rng.uniform(1 / 3, 1 / 2)
    left, top = rng.uniform(0, image.width - side, 2)
    box = (left, top, left + side, top + side)
    return image.resize(image.size, Image.Resampling.BICUBIC, box)


def _noisy(images: Images, rng: np.random.Generator) -> Images:
    noise = rng.normal(0, 60, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


def _blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(image.width / 20))


def _jigsaw(images: Images, rng: np.random.Generator) -> Images:
    """Sixteen parts of an image in another order."""
    edges = np.linspace(0, images.shape[-1], 5).astype(int)
    altered = images.copy()
    for one, other in zip(images, altered, strict=True):
        for place, source in enumerate(rng.permutation(16)):
            (row, column), (y, x) = divmod(place, 4), divmod(int(source), 4)
            part = Image.fromarray(one[edges[y] : edges[y + 1], edges[x] : edges[x + 1]])
            target = other[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
            target[:] = np.asarray(part.resize(target.shape[::-1]))
    return altered


def spread(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Values stretched to 0..255, but for a hundredth at either end."""
    low, high = np.quantile(values, (0.01, 0.99))
    stretched = (values - low) * (255 / max(high - low, 1e-9))
    grey: npt.NDArray[np.uint8] = stretched.clip(0, 255).astype(np.uint8)
    return grey


def _spectrum(size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Noise whose amplitude falls with frequency, as in photographs.

    Field 1987, doi.org/10.1364/JOSAA.4.002379.
    """
    frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequencies[0, 0] = 1
    noise = np.fft.rfft2(rng.normal(size=(size, size))) / frequencies ** rng.uniform(0, 2)
    return spread(np.fft.irfft2(noise, (size, size)))


def _stripes(size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Gratings, checkerboards and gradients, with some noise."""
    y, x = np.mgrid[:size, :size] / size
    angle, waves = rng.uniform(0, 2 * np.pi), 2 ** rng.uniform(-1, 5)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    phase = rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi * waves * along + phase)
    if rng.random() < 0.5:
        wave = wave * np.sin(2 * np.pi * waves * across + phase)
    if rng.random() < 0.5:
        wave = np.sign(wave)
    return spread(wave + rng.normal(0, rng.uniform(0.01, 0.3), wave.shape))


def _text(size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A page of text, or a window of it in a dark screen."""
    paper, ink = (255, 20) if rng.random() < 0.7 else (25, 230)
    page = Image.new("L", (2 * size, 2 * size), paper)
    draw = ImageDraw.Draw(page)
    height = int(rng.integers(size // 20 + 1, size // 6 + 3))
    margin = int(rng.integers(0, size // 3 + 1))
    for top in range(margin, 2 * size - margin, int(height * rng.uniform(1.2, 2)) + 1):
        end = 2 * size - margin if rng.random() < 0.8 else int(rng.integers(margin, 2 * size))
        left = float(margin)
        while left < end:
            right = left + height * rng.uniform(0.5, 4)
            for letter in np.arange(left, right, height * 0.6):
                box = (letter, top, letter + height * 0.4, top + height * rng.uniform(0.4, 0.8))
                if rng.random() < 0.5:
                    draw.rectangle(box, outline=ink, width=max(1, height // 8))
                else:
                    draw.line(box, ink, width=max(1, height // 8))
            left = right + height * 0.6
    return np.asarray(page.resize((size, size), Image.Resampling.BOX))


def _shapes(size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Ellipses, polygons and lines over a gradient."""
    y, x = np.mgrid[:size, :size] / size
    ground = rng.uniform(0, 255) + 120 * (x * rng.normal() + y * rng.normal())
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(2, 30))):
        grey, kind = int(rng.integers(0, 256)), rng.integers(3)
        corners = rng.uniform(-0.2, 1.2, (2, 2)) * size
        if kind == 0:
            draw.ellipse([*corners.min(axis=0), *corners.max(axis=0)], fill=grey)
        elif kind == 1:
            draw.polygon([tuple(point) for point in rng.uniform(0, size, (4, 2))], fill=grey)
        else:
            draw.line([tuple(point) for point in corners], grey, width=1 + size // 40)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, size / 60))))


def _made(make: Callable[[int, np.random.Generator], npt.NDArray[np.uint8]]) -> Alteration:
    def alter(images: Images, rng: np.random.Generator) -> Images:
        return np.stack([make(images.shape[-1], rng) for _ in images])

    return alter


ALTERATIONS: Mapping[str, Alteration] = {
    "rotated_90": _turned(1),
    "rotated_180": _turned(2),
    "rotated_270": _turned(3),
    "flipped": lambda images, rng: images[:, :, ::-1].copy(),
    "inverted": lambda images, rng: 255 - images,
    "cropped": _each(_cropped),
    "noisy": _noisy,
    "blurred": _each(_blurred),
    "jigsaw": _jigsaw,
    "spectrum": _made(_spectrum),
    "stripes": _made(_stripes),
    "text": _made(_text),
    "shapes": _made(_shapes),
}
# The reason for which a kind should be rejected; none is expected of the others.
EXPECTED: Mapping[str, Reason] = {
    "rotated_90": "rotated_90",
    "rotated_180": "rotated_180",
    "rotated_270": "rotated_270",
    "flipped": "flipped",
    "inverted": "inverted",
    **dict.fromkeys(("cropped", "jigsaw", "spectrum", "stripes", "text", "shapes"), "not_chest"),
}


def apply(kind: str, images: Images, seed: int) -> Images:
    """``kind`` of ``ALTERATIONS`` of images, the same for the same seed."""
    return ALTERATIONS[kind](images, np.random.default_rng([seed, *kind.encode()]))
