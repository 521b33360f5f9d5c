import numpy as np
import pytest

from cxr_assets.evaluation.comparison import mcnemar

TARGETS = np.array([0] * 40)


def answers(right: range) -> np.ndarray:
    return np.eye(2)[[0 if image in right else 1 for image in range(40)]]


def test_mcnemar_counts_the_images_that_one_model_alone_reads_right():
    test = mcnemar(answers(range(30)), answers(range(10, 32)), TARGETS)
    # 2 * P(at most 2 of 12) with a fair coin.
    assert test == {"only_ours": 10, "only_theirs": 2, "p": pytest.approx(2 * 79 / 2**12)}


def test_models_that_agree_do_not_differ():
    assert mcnemar(answers(range(30)), answers(range(30)), TARGETS) == {
        "only_ours": 0,
        "only_theirs": 0,
        "p": 1.0,
    }
