"""What the gate sees of an image: a thumbnail, and histograms of its gradients."""

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]

_SIDE = 64  # of the image whose gradients are counted, in pixels
_THUMBNAIL = 16
_CELLS = 8  # of the histograms, a side
_BINS = 8  # of directions, a cell

# Numbers in a descriptor.
LENGTH = _THUMBNAIL**2 + _CELLS**2 * _BINS


def describe(images: npt.NDArray[np.uint8]) -> Floats:
    """Descriptors float32 [N, LENGTH] of images uint8 [N, size, size].

    Contrast does not count: grey levels have mean 0 and variance 1. The second part are histograms
    of oriented gradients (Dalal and Triggs 2005, doi.org/10.1109/CVPR.2005.177), with signed
    directions, so that an inverted image differs.
    """
    resized = [
        Image.fromarray(one).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR) for one in images
    ]
    grey = np.stack([np.asarray(one) for one in resized]).astype(np.float32)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    grey /= grey.std(axis=(1, 2), keepdims=True) + 1e-3
    thumbnail = _sums(grey, _THUMBNAIL) / (_SIDE // _THUMBNAIL) ** 2
    return np.concatenate([thumbnail.reshape(len(grey), -1), _histograms(grey)], axis=1)


def turned(descriptors: Floats, quarters: int) -> Floats:
    """Descriptors [N, LENGTH] of the images turned clockwise by ``quarters`` of a circle."""
    small, cells = _parts(descriptors)
    cells = np.roll(np.rot90(cells, -quarters, (1, 2)), quarters * _BINS // 4, axis=3)
    return _joined(np.rot90(small, -quarters, (1, 2)), cells)


def inverted(descriptors: Floats) -> Floats:
    """Descriptors [N, LENGTH] of the images with dark and bright exchanged."""
    small, cells = _parts(descriptors)
    return _joined(-small, np.roll(cells, _BINS // 2, axis=3))


def flipped(descriptors: Floats) -> Floats:
    """Descriptors [N, LENGTH] of the images with left and right exchanged."""
    small, cells = _parts(descriptors)
    return _joined(small[:, :, ::-1], np.roll(cells[:, :, ::-1, ::-1], _BINS // 2 + 1, axis=3))


def _parts(descriptors: Floats) -> tuple[Floats, Floats]:
    small, cells = np.split(descriptors, [_THUMBNAIL**2], axis=1)
    return (
        small.reshape(-1, _THUMBNAIL, _THUMBNAIL),
        cells.reshape(-1, _CELLS, _CELLS, _BINS),
    )


def _joined(small: Floats, cells: Floats) -> Floats:
    return np.concatenate([part.reshape(len(part), -1) for part in (small, cells)], axis=1)


def _sums(values: Floats, side: int) -> Floats:
    """Sums [..., side, side] over square parts of values [..., _SIDE, _SIDE]."""
    part = _SIDE // side
    # Rows first, which are contiguous: over both at once it takes three times as long.
    rows = values.reshape(*values.shape[:-2], side, part, _SIDE).sum(axis=-2)
    sums: Floats = rows.reshape(*rows.shape[:-1], side, part).sum(axis=-1)
    return sums


def _histograms(grey: Floats) -> Floats:
    """Histograms float32 [N, cells * directions] of images [N, _SIDE, _SIDE].

    Directions are clockwise from that to the right. Each gradient is a sum of two vectors, along
    the directions on its either side, and counts for both with their lengths.
    """
    right, down = np.zeros_like(grey), np.zeros_like(grey)
    right[:, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
    down[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    across, along = np.abs(right), np.abs(down)
    diagonal, zero = np.float32(2**0.5), np.float32(0)
    lengths = (
        np.maximum(right - along, zero),
        np.maximum(np.minimum(right, down), zero) * diagonal,
        np.maximum(down - across, zero),
        np.maximum(np.minimum(-right, down), zero) * diagonal,
        np.maximum(-right - along, zero),
        np.maximum(np.minimum(-right, -down), zero) * diagonal,
        np.maximum(-down - across, zero),
        np.maximum(np.minimum(right, -down), zero) * diagonal,
    )
    cells = np.moveaxis(_sums(np.stack(lengths), _CELLS), 0, 3)
    # In a cell without structure the directions are noise.
    total = np.sqrt(np.square(cells).sum(axis=3, keepdims=True)) + np.float32(0.6)
    histograms: Floats = (cells / total).reshape(len(grey), -1)
    return histograms
