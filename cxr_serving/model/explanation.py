"""Class activation maps at image size, and images of them."""

import base64
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

# Nine colours of plasma, evenly spaced from dark blue to yellow; lightness rises all the way, so
# that it can be read without colour vision (Smith and van der Walt 2015, bids.github.io/colormap).
_COLOURS = (
    (13, 8, 135), (76, 2, 161), (126, 3, 168), (170, 35, 149), (204, 71, 120),
    (230, 108, 92), (248, 149, 64), (253, 197, 39), (240, 249, 33),
)  # fmt: skip


def grad_cam(cam: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Scale a class activation map to the image (Grad-CAM, arXiv 1610.02391).

    Args:
        cam: float32 [h, w], of one class, as :meth:`Predictor.answer` gives it.
        size: side of the image, in pixels.

    Returns:
        float32 [size, size] in 0..1: 1 where the evidence for the class is strongest, 0 everywhere
        where there is none at all.
    """
    fine = np.asarray(Image.fromarray(cam).resize((size, size), Image.Resampling.BILINEAR))
    found: npt.NDArray[np.float32] = fine / max(fine.max(), np.float32(1e-12))
    return found


def overlay(image: npt.NDArray[np.uint8], cam: npt.NDArray[np.float32]) -> bytes:
    """The image in grey under the map, which goes from blue to yellow and grows more opaque.

    Args:
        image: uint8 [size, size].
        cam: float32 [size, size] in 0..1.

    Returns:
        A PNG image.
    """
    stops = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack(
        [np.interp(cam, stops, channel) for channel in zip(*_COLOURS, strict=True)], axis=-1
    )
    weight = 0.6 * cam[..., np.newaxis]
    mixed = image[..., np.newaxis] * (1 - weight) + colours * weight
    return png(mixed.astype(np.uint8))


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG image of pixels uint8 [H, W] or [H, W, 3]."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    """A PNG image as a URL that holds it, for HTML and JSON."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
