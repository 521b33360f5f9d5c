import numpy as np
import pandas as pd
import pytest
import torch

from cxr_assets.evaluation import bootstrap
from cxr_assets.evaluation.metrics import evaluate
from cxr_serving.model.comparison import Difference

CLASSES = ("bacterial_pneumonia", "normal", "viral_pneumonia")
RNG = np.random.default_rng(0)
PROBABILITIES = RNG.dirichlet([1, 1, 1], 60).astype(np.float32)
TARGETS = RNG.integers(0, 3, 60)
# Equal ones are one threshold.
TIED = (RNG.multinomial(4, [0.2, 0.3, 0.5], 60) / 4).astype(np.float32)
PATIENTS = [f"patient {number // 3}" for number in range(60)]


def test_images_of_a_patient_are_resampled_together():
    for row in bootstrap.draws(PATIENTS):
        images = np.bincount(row[row >= 0], minlength=60).reshape(20, 3)
        assert (images == images[:, :1]).all()
        assert images[:, 0].sum() == 20
    assert bootstrap.draws(PATIENTS).equal(bootstrap.draws(PATIENTS))


@pytest.mark.parametrize("probabilities", [PROBABILITIES, TIED])
def test_each_draw_has_the_metrics_of_its_images(probabilities: np.ndarray):
    drawn = bootstrap.draws(PATIENTS)
    table = bootstrap.scores(probabilities, TARGETS, CLASSES, drawn)
    assert len(table) == len(drawn)
    for index in (0, 7, 23):
        images = drawn[index][drawn[index] >= 0].numpy()
        expected = evaluate(probabilities[images], TARGETS[images], CLASSES)
        row = table.iloc[index]
        for name in ("accuracy", "macro_f1", "auroc_macro_ovr", "average_precision_macro_ovr"):
            assert row[name] == pytest.approx(getattr(expected, name), abs=2e-6)
        for label in CLASSES:
            scores = expected.classification_report.classes[label]
            for name in ("precision", "recall", "f1"):
                assert row[f"{label}/{name}"] == pytest.approx(getattr(scores, name), abs=2e-6)
            assert row[f"{label}/auroc"] == pytest.approx(expected.auroc_ovr[label], abs=2e-6)


def test_draws_counted_a_few_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch):
    drawn = bootstrap.draws(PATIENTS)
    monkeypatch.setattr(bootstrap, "_BLOCK", len(drawn))
    at_once = bootstrap.scores(PROBABILITIES, TARGETS, CLASSES, drawn)
    monkeypatch.setattr(bootstrap, "_BLOCK", 7)
    pd.testing.assert_frame_equal(
        bootstrap.scores(PROBABILITIES, TARGETS, CLASSES, drawn), at_once, check_exact=True
    )


def test_an_absent_class_has_no_interval_and_is_in_no_mean():
    targets = np.where(TARGETS == 2, 0, TARGETS)
    table = bootstrap.scores(PROBABILITIES, targets, CLASSES, bootstrap.draws(PATIENTS))
    assert bootstrap.interval(table["viral_pneumonia/recall"]) is None
    assert bootstrap.interval(table["viral_pneumonia/auroc"]) is None
    assert bootstrap.interval(table["macro_f1"]) is not None
    present = table[["bacterial_pneumonia/f1", "normal/f1"]].mean(axis=1)
    np.testing.assert_allclose(table["macro_f1"], present)


def test_draws_within_a_part_have_the_metrics_of_its_images_alone():
    member = np.arange(60) % 5 == 0
    drawn = bootstrap.draws(PATIENTS)
    table = bootstrap.top1(PROBABILITIES, TARGETS, CLASSES, drawn, member)
    for index in (0, 7, 23):
        images = drawn[index][drawn[index] >= 0].numpy()
        images = images[member[images]]
        expected = evaluate(PROBABILITIES[images], TARGETS[images], CLASSES)
        assert table["accuracy"][index] == pytest.approx(expected.accuracy, abs=2e-6)
        assert table["macro_f1"][index] == pytest.approx(expected.macro_f1, abs=2e-6)
    nobody = bootstrap.top1(PROBABILITIES, TARGETS, CLASSES, torch.full((2, 3), -1))
    assert nobody.isna().all(axis=None)


def test_many_images_of_few_children_say_less(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 400)
    probabilities, targets = (np.repeat(array, 9, axis=0) for array in (PROBABILITIES, TARGETS))
    widths = []
    for patients in (range(540), np.repeat(range(60), 9)):
        table = bootstrap.scores(probabilities, targets, CLASSES, bootstrap.draws(patients))
        low, high = bootstrap.interval(table["accuracy"])
        assert low < (probabilities.argmax(axis=1) == targets).mean() < high
        widths.append(high - low)
    # Nine equal images of a patient are worth one: the interval is three times as wide.
    assert widths[1] / widths[0] == pytest.approx(3, rel=0.25)


def test_a_difference_that_may_be_chance_is_distinguished_from_one_that_is_not(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 400)
    draws = pd.Series(np.random.default_rng(0).normal(0.1, 0.02, 400))
    clear = bootstrap.difference(draws, 0.1)
    assert clear.interval[0] > 0
    assert clear.p == pytest.approx(2 / 401, abs=1e-6)
    assert bootstrap.difference(draws - 0.1, 0.0).p > 0.5
    assert bootstrap.difference(draws * 0, 0.0) == Difference(estimate=0, interval=(0, 0), p=1)


def test_a_draw_of_one_class_has_no_area():
    targets = np.array([0, 0, 1, 2])
    probabilities = np.full((4, 3), 1 / 3)
    drawn = torch.tensor([[0, 1, 0, -1], [0, 1, 2, 3]])
    alone, together = bootstrap.scores(probabilities, targets, ("a", "b", "c"), drawn).to_dict(
        "records"
    )
    for name in ("a/auroc", "a/average_precision", "auroc_macro_ovr"):
        assert np.isnan(alone[name])
        assert together[name] > 0


def test_a_difference_that_few_draws_define_is_not_made_significant_by_the_others():
    values = pd.Series([0.1, 0.2, -0.1] + [np.nan] * 997)
    assert bootstrap.difference(values, 0.1).p == 1
