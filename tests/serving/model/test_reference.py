from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cxr_serving.model import reference
from cxr_serving.model.bundle import REFERENCE_FILE, BundleError
from cxr_serving.model.reference import Reference

IMAGES = np.zeros((2, 4, 4), np.uint8)
PROBABILITIES = np.array([[0.5, 0.5], [0.9, 0.1]], np.float32)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    Reference(IMAGES, PROBABILITIES).write(tmp_path)
    found = reference.read(tmp_path)
    np.testing.assert_array_equal(found.images, IMAGES)
    np.testing.assert_array_equal(found.probabilities, PROBABILITIES)


def test_reference_images_must_be_there_and_whole(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        reference.read(tmp_path)
    (tmp_path / REFERENCE_FILE).write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"reference\.safetensors cannot be read"):
        reference.read(tmp_path)


@pytest.mark.parametrize(
    "images", [IMAGES[:1], IMAGES[0], IMAGES.astype(np.float32)], ids=["number", "shape", "dtype"]
)
def test_images_and_answers_must_belong_together(tmp_path: Path, images: np.ndarray) -> None:
    tensors = {"images": images, "probabilities": PROBABILITIES}
    save_file(tensors, tmp_path / REFERENCE_FILE)
    with pytest.raises(BundleError, match=r"images .* and answers"):
        reference.read(tmp_path)


def test_the_difference_is_the_largest_of_a_probability_and_nan_shows() -> None:
    kept = Reference(IMAGES, PROBABILITIES)
    assert kept.difference(PROBABILITIES) == 0
    other = PROBABILITIES + np.float32([[0.01, -0.01], [0.3, -0.3]])
    assert kept.difference(other) == pytest.approx(0.3)
    assert np.isnan(kept.difference(np.full_like(PROBABILITIES, np.nan)))
