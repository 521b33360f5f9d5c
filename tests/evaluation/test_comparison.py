import numpy as np
import pytest

from cxr_assets.evaluation.comparison import mcnemar
from cxr_serving.model.comparison import McNemar

TARGETS = np.array([0] * 40)


def answers(right: range) -> np.ndarray:
    return np.eye(2)[[0 if image in right else 1 for image in range(40)]]


def test_mcnemar_counts_the_images_that_one_model_alone_classifies_correctly():
    test = mcnemar(answers(range(30)), answers(range(10, 32)), TARGETS)
    # 2 * P(at most 2 of 12) with a fair coin.
    assert (test.only_ours, test.only_theirs) == (10, 2)
    assert test.p == pytest.approx(2 * 79 / 2**12)


def test_models_that_agree_do_not_differ():
    assert mcnemar(answers(range(30)), answers(range(30)), TARGETS) == McNemar(
        only_ours=0, only_theirs=0, p=1
    )
