"""What the network looked at: Grad-CAM, and the picture of it."""

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_serving.predictor import Predictor

# Nine colours of cividis, from blue to yellow, which people who see colours otherwise tell apart
# too (Nunez, Anderton, Renslow 2018, doi 10.1371/journal.pone.0199239); evenly spaced.
_COLOURS = (
    (0, 34, 78), (26, 56, 111), (67, 78, 108), (97, 101, 111), (125, 124, 120),
    (154, 147, 118), (187, 173, 109), (221, 200, 88), (254, 232, 56),
)  # fmt: skip


def grad_cam(
    predictor: Predictor, films: npt.NDArray[np.uint8], classes: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float32] | None:
    """Where a film speaks for a class, by the gradients of the last stage (arXiv 1610.02391).

    Args:
        predictor: of a ConvNeXt V2.
        films: uint8 [N, size, size].
        classes: [N], index of the class to explain in each film.

    Returns:
        float32 [N, size, size] in 0..1, 1 where it speaks most for the class and 0 all over a film
        that nowhere does; None for a network that is not explained.
    """
    heat = predictor.heat(films)
    if heat is None:
        return None
    size = films.shape[1:]
    found = np.empty(films.shape, np.float32)
    for place, (film, index) in enumerate(zip(heat, classes, strict=True)):
        fine = Image.fromarray(film[index]).resize(size, Image.Resampling.BILINEAR)
        found[place] = np.asarray(fine) / max(fine.getextrema()[1], 1e-12)
    return found


def overlay(film: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> bytes:
    """The film in grey and the heat over it, the more the hotter, from blue to yellow.

    Args:
        film: uint8 [size, size].
        heat: float32 [size, size] in 0..1.

    Returns:
        A PNG image.
    """
    stops = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack(
        [np.interp(heat, stops, channel) for channel in zip(*_COLOURS, strict=True)], axis=-1
    )
    weight = 0.6 * heat[..., np.newaxis]
    mixed = film[..., np.newaxis] * (1 - weight) + colours * weight
    return png(mixed.astype(np.uint8))


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG image of pixels uint8 [H, W] or [H, W, 3]."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
