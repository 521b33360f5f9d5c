import numpy as np
import pytest
from scipy.special import softmax

from cxr_assets.evaluation.reliability import BINS, calibration, reliability, uncalibrated

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6000, 3)) * 2
TRUE = softmax(LOGITS, axis=1)
TARGETS = (TRUE.cumsum(axis=1) > RNG.random((6000, 1))).argmax(axis=1)


def test_true_probabilities_have_almost_no_calibration_error():
    assert calibration(TRUE, TARGETS).ece < 0.02


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_wrong_temperatures_are_worse_in_every_metric(temperature):
    right, wrong = (
        calibration(softmax(LOGITS / t, axis=1).astype(np.float32), TARGETS)
        for t in (1.0, temperature)
    )
    assert wrong.ece > right.ece + 0.05
    assert wrong.brier > right.brier
    assert wrong.nll > right.nll


def test_brier_score_and_likelihood_follow_their_formulas():
    scores = calibration(TRUE, TARGETS)
    assert scores.brier == pytest.approx(
        ((TRUE - np.eye(3)[TARGETS]) ** 2).sum(axis=1).mean(), abs=1e-6
    )
    likelihood = TRUE[np.arange(len(TARGETS)), TARGETS]
    assert scores.nll == pytest.approx(-np.log(likelihood).mean(), abs=1e-6)


def test_bins_hold_equally_many_images():
    bins = reliability(TRUE, TARGETS)
    assert bins["images"].tolist() == [6000 // BINS] * BINS
    assert bins["confidence"].is_monotonic_increasing
    assert len(reliability(TRUE[:4], TARGETS[:4])) == 4


def test_temperature_scaling_can_be_undone():
    calibrated = softmax(LOGITS / 1.7, axis=1).astype(np.float32)
    np.testing.assert_allclose(uncalibrated(calibrated, 1.7), TRUE, atol=1e-5)
    certain = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    assert np.isfinite(uncalibrated(certain, 1.7)).all()
