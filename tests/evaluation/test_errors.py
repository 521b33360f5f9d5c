import numpy as np

from cxr_assets.evaluation.errors import ConfidentErrors

TARGETS = np.array([0, 0, 0, 1, 1, 2])
# Predicted class and its probability.
ANSWERS = [(1, 0.6), (1, 0.9), (1, 0.7), (1, 0.9), (2, 0.8), (2, 0.9)]


def probabilities() -> np.ndarray:
    rows = np.full((6, 3), 0.05, dtype=np.float32)
    for row, (answer, confidence) in zip(rows, ANSWERS, strict=True):
        row[answer] = confidence
    return rows


def test_of_each_kind_the_two_most_confident_errors_are_kept_across_batches():
    pixels = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    cam = np.arange(18, dtype=np.float32).reshape(6, 3, 1, 1)
    errors = ConfidentErrors(TARGETS)
    for start in range(0, 6, 2):
        batch = slice(start, start + 2)
        errors.add(pixels[batch], probabilities()[batch], cam[batch])
    found = errors.found()
    assert [(error.image, error.truth, error.answer) for error in found] == [
        (1, 0, 1),
        (2, 0, 1),
        (4, 1, 2),
    ]
    for error in found:
        assert (error.pixels == error.image).all()
        assert error.cam.item() == 3 * error.image + error.answer
        assert error.pixels.base is None, "a view would keep its batch in memory"


def test_a_network_without_activation_maps_has_errors_all_the_same():
    errors = ConfidentErrors(TARGETS)
    errors.add(np.zeros((6, 4, 4), np.uint8), probabilities(), None)
    assert [error.cam for error in errors.found()] == [None] * 3
