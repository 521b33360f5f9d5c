"""Altered images and synthetic pictures."""

import numpy as np
import pytest

from cxr_assets.radiographs import alteration
from cxr_assets.radiographs.alteration import ALTERATIONS, EXPECTED
from cxr_serving.model.gate import REPAIRS, repaired

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 33, 33), dtype=np.uint8)


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_every_kind_is_another_image_and_the_same_for_the_same_seed(kind: str) -> None:
    altered = alteration.apply(kind, IMAGES, 7)
    assert altered.dtype == np.uint8
    assert altered.shape == IMAGES.shape
    assert not np.array_equal(altered, IMAGES)
    np.testing.assert_array_equal(alteration.apply(kind, IMAGES, 7), altered)


def test_what_can_be_repaired_is_what_the_repair_undoes() -> None:
    for kind, reason in EXPECTED.items():
        if reason in REPAIRS:
            [altered, _] = alteration.apply(kind, IMAGES, 7)
            np.testing.assert_array_equal(repaired(altered, REPAIRS[reason]), IMAGES[0])
