"""Simulated scanners."""

import numpy as np
import pytest

from cxr_assets.evaluation import scanners
from cxr_assets.evaluation.scanners import SCANNERS, scan
from cxr_assets.radiographs import anatomy

rng = np.random.default_rng(0)
BODIES = [anatomy.Anatomy.sample(rng) for _ in range(3)]
SIZE = 64
IMAGES = np.stack(
    [
        np.asarray(anatomy.expose(body, "normal", rng).convert("L").resize((SIZE, SIZE)))
        for body in BODIES
    ]
)


@pytest.mark.parametrize("name", SCANNERS)
def test_every_scanner_changes_each_image_visibly_but_leaves_the_chest_in_it(name: str) -> None:
    before = IMAGES.copy()
    changed = scan(name, IMAGES)
    assert changed.dtype == np.uint8
    assert changed.shape == IMAGES.shape
    np.testing.assert_array_equal(IMAGES, before)
    for image, other in zip(IMAGES, changed, strict=True):
        difference = np.abs(image.astype(int) - other)
        assert difference.max() >= 8
        assert difference.mean() < 45
        assert np.corrcoef(image.ravel(), other.ravel())[0, 1] > 0.7


@pytest.mark.parametrize("name", SCANNERS)
def test_an_image_is_changed_in_the_same_way_whatever_is_beside_it(name: str) -> None:
    np.random.seed(1)
    together = scan(name, IMAGES)
    np.random.seed(2)
    np.testing.assert_array_equal(scan(name, IMAGES[1:])[0], together[1])
    np.testing.assert_array_equal(scan(name, IMAGES), together)


def test_scanners_differ_from_one_another() -> None:
    every = [scan(name, IMAGES[:1]).tobytes() for name in SCANNERS]
    assert len(set(every)) == len(SCANNERS)


def test_what_is_random_differs_between_images() -> None:
    other = IMAGES[0].copy()
    other[-1, -1] ^= 1
    for name in ("noisy", "collimated", "text_markers"):
        changed = scan(name, np.stack([IMAGES[0], other]))
        assert not np.array_equal(changed[0], changed[1])


def test_tone_curves_keep_black_and_white_and_the_order_of_grey_levels() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None], 256, axis=0)[None]
    for name in ("darker", "brighter", "higher_contrast", "lower_contrast"):
        curve = scan(name, levels)[0, 0].astype(int)
        assert (curve[0], curve[-1]) == (0, 255)
        assert (np.diff(curve) >= 0).all()
    assert scan("darker", levels)[0, 0, 128] == round(255 * (128 / 255) ** 1.6)
    steep = scan("higher_contrast", levels)[0, 0].astype(float)
    assert (steep[148] - steep[107]) / 41 == pytest.approx(1.66, abs=0.05)
    np.testing.assert_allclose(steep[scan("lower_contrast", levels)[0, 0]], np.arange(256), atol=3)


def test_a_flat_image_stays_flat_under_what_only_looks_at_differences() -> None:
    flat = np.full((1, SIZE, SIZE), 100, np.uint8)
    for name in ("local_contrast", "dynamic_range", "sharpened", "blurred", "jpeg"):
        assert np.abs(scan(name, flat).astype(int) - 100).max() <= 1


def test_adaptive_equalisation_spreads_the_grey_levels_of_a_dim_region() -> None:
    dim = np.random.default_rng(0).integers(100, 120, (1, SIZE, SIZE)).astype(np.uint8)
    assert scan("adaptive_equalisation", dim).std() > 1.5 * dim.std()


def test_the_collimator_shadows_every_side_and_text_stays_at_the_edge() -> None:
    bright = np.full((1, SIZE, SIZE), 200, np.uint8)
    shadowed = scan("collimated", bright)[0]
    for side in (shadowed[0], shadowed[-1], shadowed[:, 0], shadowed[:, -1]):
        assert (side == 0).all()
    margin = round(SIZE * scanners._SHADOW[1]) + 1
    assert (shadowed[margin:-margin, margin:-margin] == 200).all()
    marked = scan("text_markers", np.zeros((1, 128, 128), np.uint8))[0]
    assert marked[:32].max() > 200, "a letter"
    assert marked[-32:].max() > 100, "small text"
    assert not marked[32:-32].any()
