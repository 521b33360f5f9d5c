import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxr_assets.evaluation import operating

CLASSES = ("bacterial_pneumonia", "normal", "viral_pneumonia")
RNG = np.random.default_rng(0)
TARGETS = RNG.integers(0, 3, 300)
PROBABILITIES = RNG.dirichlet([1, 1, 1], 300) * 0.6 + np.eye(3)[TARGETS] * 0.4


def test_all_other_classes_against_normal():
    summary = operating.abnormal(PROBABILITIES, TARGETS, CLASSES)
    positive = TARGETS != 1
    assert summary.auroc == pytest.approx(
        roc_auc_score(positive, PROBABILITIES[:, 0] + PROBABILITIES[:, 2]), abs=1e-6
    )
    answered = PROBABILITIES.argmax(axis=1) != 1
    assert summary.sensitivity == pytest.approx(answered[positive].mean(), abs=1e-6)
    assert summary.specificity == pytest.approx((~answered[~positive]).mean(), abs=1e-6)
    for wanted, point in summary.at_sensitivity.items():
        called = 1 - PROBABILITIES[:, 1] >= point.threshold
        assert called[positive].mean() >= float(wanted)
        assert called[positive].mean() == pytest.approx(point.sensitivity, abs=1e-6)
        assert (~called[~positive]).mean() == pytest.approx(point.specificity, abs=1e-6)


@pytest.mark.parametrize("only", [0, 1])
def test_images_of_one_kind_alone_have_no_operating_point(only):
    images = only == TARGETS
    assert operating.abnormal(PROBABILITIES[images], TARGETS[images], CLASSES) is None


def test_without_a_class_of_normal_images_nothing_is_abnormal():
    assert operating.abnormal(PROBABILITIES, TARGETS, ("effusion", "nodule", "pneumonia")) is None


def test_metrics_when_the_least_certain_images_are_set_aside():
    curve = operating.selective(PROBABILITIES, TARGETS)
    assert curve["images"].tolist() == [round(300 * share) for share in curve["coverage"]]
    assert curve["confidence"].is_monotonic_increasing
    assert curve["accuracy"].iloc[0] == pytest.approx(
        (PROBABILITIES.argmax(axis=1) == TARGETS).mean(), abs=1e-6
    )
    assert curve["accuracy"].iloc[-1] > curve["accuracy"].iloc[0]


def test_with_few_images_of_a_class_macro_f1_is_left_out():
    certain = np.where((TARGETS == 2)[:, None], PROBABILITIES, np.eye(3)[TARGETS])
    curve = operating.selective(certain, TARGETS)
    assert curve["macro_f1"].notna().iloc[0]
    assert curve["macro_f1"].isna().iloc[-1]
    assert curve["accuracy"].notna().all()


def test_on_separable_images_each_sensitivity_has_a_threshold_of_its_own():
    targets = np.repeat([0, 1], 100)
    certain = np.concatenate([np.linspace(0.5001, 0.9, 100), np.linspace(0.1, 0.4, 100)])
    probabilities = np.stack([certain, 1 - certain, np.zeros(200)], axis=1).astype(np.float32)
    points = operating.abnormal(probabilities, targets, CLASSES).at_sensitivity
    for wanted, point in points.items():
        called = 1 - probabilities[:, 1].astype(np.float64) >= point.threshold
        assert called[:100].mean() == float(wanted) == point.sensitivity
        assert point.specificity == 1
    assert len({point.threshold for point in points.values()}) == 3


def test_images_that_tie_in_confidence_are_kept_together():
    targets = np.repeat([0, 1], 50)
    probabilities = np.tile([0.9, 0.1, 0.0], (100, 1))
    curve = operating.selective(probabilities, targets)
    assert set(curve["images"]) == {100}
    assert set(curve["accuracy"]) == {0.5}
