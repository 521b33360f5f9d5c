"""Descriptors of altered images are those of the images, rearranged."""

from collections.abc import Callable

import gates
import numpy as np
import pytest

from cxr_serving.model import descriptor


@pytest.mark.parametrize("size", [32, 64, 224])
@pytest.mark.parametrize(
    ("alter", "rearrange"),
    [
        (lambda image: np.rot90(image, -1), lambda found: descriptor.turned(found, 1)),
        (lambda image: np.rot90(image, -3), lambda found: descriptor.turned(found, 3)),
        (lambda image: image[::-1, ::-1], lambda found: descriptor.turned(found, 2)),
        (lambda image: image[:, ::-1], descriptor.flipped),
        (lambda image: 255 - image, descriptor.inverted),
    ],
)
def test_an_altered_image_needs_no_new_descriptor(
    size: int,
    alter: Callable[[np.ndarray], np.ndarray],
    rearrange: Callable[[np.ndarray], np.ndarray],
) -> None:
    image = np.asarray(gates.radiograph().resize((size, size)))
    found = descriptor.describe(image[np.newaxis])
    assert found.shape == (1, descriptor.LENGTH)
    altered = descriptor.describe(np.ascontiguousarray(alter(image))[np.newaxis])
    # Resizing rounds to whole grey levels.
    np.testing.assert_allclose(altered, rearrange(found), atol=0.1)
    assert np.abs(altered - found).max() > 0.5


def test_contrast_does_not_count() -> None:
    image = np.asarray(gates.radiograph().resize((64, 64)))
    faint = (image * 0.5 + 60).astype(np.uint8)
    whole, half = descriptor.describe(np.stack([image, faint]))
    np.testing.assert_allclose(whole, half, atol=0.1)
