import numpy as np
import pandas as pd
import pytest

from cxr_assets.evaluation import suspects

CLASSES = 3
RNG = np.random.default_rng(0)
TARGETS = np.repeat(np.arange(CLASSES), 100)
PATIENTS = pd.Series(np.arange(300) // 2)
CENTRES = 6 * np.eye(CLASSES, 8)
EMBEDDINGS = (CENTRES[TARGETS] + RNG.normal(size=(300, 8))).astype(np.float32)


def test_planted_errors_are_the_ones_most_in_doubt() -> None:
    planted = np.sort(RNG.choice(300, 15, replace=False))
    given = TARGETS.copy()
    given[planted] = (given[planted] + 1) % CLASSES
    probabilities = suspects.out_of_fold(EMBEDDINGS, given, PATIENTS)
    doubts = suspects.doubts(probabilities, given)
    assert ((doubts >= 0) & (doubts <= 1)).all()
    assert np.sort(np.argsort(-doubts)[:15]).tolist() == planted.tolist()
    assert np.flatnonzero(suspects.likely_errors(probabilities, given)).tolist() == planted.tolist()
    assert (probabilities.argmax(axis=1) == TARGETS).mean() > 0.99


def test_a_label_is_judged_without_the_patients_other_images() -> None:
    # The images of a patient are alike, and say nothing of other patients.
    of_patient = RNG.normal(size=(60, 8))
    embeddings = np.repeat(of_patient, 5, axis=0) + RNG.normal(0, 0.01, (300, 8))
    targets = np.repeat(RNG.permutation(np.repeat(np.arange(CLASSES), 20)), 5)
    patients = pd.Series(np.repeat(np.arange(60), 5))
    seen = suspects.out_of_fold(embeddings, targets, patients).argmax(axis=1) == targets
    assert seen.mean() < 0.5


def test_the_same_images_get_the_same_answers() -> None:
    first, second = (suspects.out_of_fold(EMBEDDINGS, TARGETS, PATIENTS) for _ in range(2))
    assert (first == second).all()


def test_what_resembles_no_other_image_is_an_outlier() -> None:
    strange = np.full((2, 8), [[-9.0], [9.0]]) * RNG.choice([-1, 1], (2, 8))
    scores, outlying = suspects.strangeness(np.concatenate([EMBEDDINGS, strange]))
    assert set(np.argsort(-scores)[:2]) == {300, 301}
    assert outlying[[300, 301]].all()
    assert outlying.sum() < 15
    assert ((scores >= 0) & (scores <= 1)).all()


def test_neighbours_of_many_are_searched_among_some(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = 120
    monkeypatch.setattr(suspects, "_SAMPLE", searched)
    scores, _ = suspects.strangeness(EMBEDDINGS)
    unit = EMBEDDINGS / np.linalg.norm(EMBEDDINGS, axis=1, keepdims=True)
    distances = 1 - unit @ unit[np.random.default_rng(0).permutation(300) < searched].T
    itself = distances.min(axis=1) < 1e-6
    assert itself.sum() == searched
    nearest = np.sort(distances, axis=1)
    of_ten = np.where(itself, nearest[:, 1:11].mean(axis=1), nearest[:, :10].mean(axis=1))
    assert scores == pytest.approx(1 - np.exp(-of_ten / np.median(of_ten)), abs=1e-4)
