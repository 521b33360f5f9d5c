import math
from pathlib import Path

import numpy as np
import pytest

from cxr_serving.model import distribution
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.distribution import Distribution, histogram, psi


def test_index_of_equal_shares_is_zero() -> None:
    assert psi([0.2, 0.5, 0.3, 0], [0.2, 0.5, 0.3, 0]) == 0


def test_index_of_known_shares() -> None:
    by_hand = -0.25 * math.log(0.25 / 0.5) + 0.25 * math.log(0.75 / 0.5)
    assert psi([0.5, 0.5], [0.25, 0.75]) == pytest.approx(by_hand)
    assert psi([0.25, 0.75], np.array([0.5, 0.5])) == pytest.approx(by_hand)


def test_an_empty_bin_counts_as_a_ten_thousandth() -> None:
    by_hand = -0.5 * math.log(0.5) + (0.5 - 1e-4) * math.log(0.5 / 1e-4)
    assert psi([1, 0], [0.5, 0.5]) == pytest.approx(by_hand)
    assert psi([0.5, 0.5], [1, 0]) == pytest.approx(by_hand)


def test_grey_levels_fall_into_sixteen_equal_bins() -> None:
    images = np.arange(256, dtype=np.uint8).repeat(2).reshape(2, 16, 16)
    assert histogram(images).tolist() == [32] * 16
    images = np.array([[[0, 15], [16, 255]]], np.uint8)
    assert histogram(images).tolist() == [2, 1, *[0] * 13, 1]


def test_distribution_is_that_of_greys_and_most_probable_classes(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8), np.uint8)
    images[3] = 255
    answers = np.array([[0.1, 0.6, 0.3], [0.8, 0.1, 0.1], [0, 1, 0], [0.2, 0.5, 0.3]], np.float32)
    Distribution.of(images, answers).write(tmp_path)
    read = distribution.read(tmp_path)
    assert read is not None
    assert read.images == 4
    assert read.intensity == (0.75, *[0] * 14, 0.25)
    assert read.predictions == (0.25, 0.75, 0)


def test_a_distribution_may_be_missing_but_not_broken(tmp_path: Path) -> None:
    assert distribution.read(tmp_path) is None
    (tmp_path / "distribution.json").write_text(
        '{"images": 3, "intensity": [1], "predictions": []}'
    )
    with pytest.raises(BundleError, match=r"distribution\.json cannot be read"):
        distribution.read(tmp_path)
