"""What the gate sees of an image: a thumbnail, and histograms of its gradients."""

from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_SIDE = 32  # of the thumbnail, in pixels
_CELLS = 8  # of the histograms, a side
_BINS = 8  # of directions, a cell


def describe(images: npt.NDArray[np.uint8]) -> Floats:
    """Descriptors float32 [N, D] of images uint8 [N, size, size].

    Contrast does not count: each thumbnail has mean 0 and variance 1. The second part are
    histograms of oriented gradients (Dalal and Triggs 2005, doi.org/10.1109/CVPR.2005.177), with
    signed directions, so that an inverted image differs.
    """
    small = thumbnails(images, _SIDE)
    small = small - small.mean(axis=(1, 2), keepdims=True)
    small /= small.std(axis=(1, 2), keepdims=True) + 1e-3
    return np.concatenate([small.reshape(len(small), -1), _gradients(small)], axis=1)


def thumbnails(images: npt.NDArray[np.uint8], side: int) -> Floats:
    """Mean grey levels float32 [N, side, side] in 0..255 of images uint8 [N, size, size]."""
    rows = _areas(images.shape[-1], side)
    means: Floats = rows @ images.astype(np.float32) @ rows.T
    return means


@cache
def _areas(size: int, side: int) -> Floats:
    """Weights float32 [side, size] that average pixels over intervals of equal length."""
    edges = np.linspace(0, size, side + 1)
    pixel = np.arange(size)
    shares = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (shares.clip(0) * (side / size)).astype(np.float32)


def _gradients(small: Floats) -> Floats:
    down, right = np.gradient(small, axis=(1, 2))
    strength = np.hypot(down, right)
    turn = np.arctan2(down, right) * (_BINS / (2 * np.pi))
    number, side = len(small), small.shape[-1] // _CELLS
    histograms = np.empty((number, _CELLS * _CELLS, _BINS), np.float32)
    for index in range(_BINS):
        # Linear interpolation between neighbouring directions.
        off = np.abs((turn - index + _BINS / 2) % _BINS - _BINS / 2)
        part = strength * np.maximum(0, 1 - off)
        cells = part.reshape(number, _CELLS, side, _CELLS, side).sum(axis=(2, 4))
        histograms[..., index] = cells.reshape(number, -1)
    total = np.sqrt(np.square(histograms).sum(axis=2, keepdims=True)) + 1e-2
    flat: Floats = (histograms / total).reshape(number, -1)
    return flat
