import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import classification_report, confusion_matrix, roc_auc_score

from cxr_assets.evaluation.metrics import evaluate
from cxr_serving.model.metrics import ClassScores

CLASSES = ("bacterial_pneumonia", "normal", "viral_pneumonia")
TOLERANCE = 2e-6  # single precision, then six decimals


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with many ties, and targets in which a class may be missing."""
    images = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = draw(st.sampled_from([2, 10, 10_000]))
    raw = rng.integers(0, steps, (images, 3)) + 1e-3
    classes = draw(st.lists(st.integers(0, 2), min_size=1, unique=True))
    return raw / raw.sum(axis=1, keepdims=True), rng.choice(classes, images)


@settings(max_examples=60, deadline=None)
@given(predictions())
def test_agrees_with_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, targets = drawn
    metrics = evaluate(probabilities, targets, CLASSES)
    report = metrics.classification_report.model_dump()
    predicted = probabilities.argmax(axis=1)
    present = sorted(set(targets.tolist()))
    expected = classification_report(
        targets,
        predicted,
        labels=present,
        target_names=[CLASSES[index] for index in present],
        output_dict=True,
        zero_division=0,
    )
    for name in [*(CLASSES[index] for index in present), "macro avg", "weighted avg"]:
        assert report[name] == pytest.approx(expected[name], abs=TOLERANCE)
    accuracy = np.mean(predicted == targets)
    assert metrics.accuracy == pytest.approx(accuracy, abs=TOLERANCE)
    assert report["accuracy"] == metrics.accuracy
    assert metrics.macro_f1 == report["macro avg"]["f1-score"]
    matrix = confusion_matrix(targets, predicted, labels=range(3))
    assert metrics.confusion_matrix == matrix.tolist()
    areas = {
        CLASSES[index]: roc_auc_score(targets == index, probabilities[:, index])
        for index in present
        if len(present) > 1
    }
    for name in CLASSES:
        assert metrics.auroc_ovr[name] == (
            pytest.approx(areas[name], abs=TOLERANCE) if name in areas else None
        )
    assert metrics.auroc_macro_ovr == (
        pytest.approx(np.mean(list(areas.values())), abs=TOLERANCE) if areas else None
    )
    assert metrics.images == len(targets)


def test_macro_auroc_is_that_of_scikit_learn_when_every_class_is_present() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet([1, 1, 1], 200)
    targets = rng.integers(0, 3, 200)
    expected = roc_auc_score(targets, probabilities, multi_class="ovr", average="macro")
    assert evaluate(probabilities, targets, CLASSES).auroc_macro_ovr == pytest.approx(
        expected, abs=TOLERANCE
    )


def test_an_absent_class_is_named_and_has_no_score() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    metrics = evaluate(probabilities, np.array([0, 1, 1]), CLASSES)
    assert metrics.absent_classes == ("viral_pneumonia",)
    assert metrics.classification_report.classes["viral_pneumonia"] == ClassScores(
        precision=None, recall=None, f1=None, support=0
    )
    assert metrics.auroc_ovr["viral_pneumonia"] is None
    # Bacterial is perfect, normal has one of two: the image predicted viral is an error.
    assert metrics.macro_f1 == pytest.approx((1 + 2 / 3) / 2, abs=TOLERANCE)


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    metrics = evaluate(probabilities, np.array([0, 1, 2]), CLASSES)
    assert metrics.classification_report.classes["viral_pneumonia"].f1 == 0
    assert metrics.absent_classes == ()


@pytest.mark.parametrize(
    ("probabilities", "targets", "message"),
    [
        ([[0.5, 0.5]], [0], "2 probabilities per image for 3 classes"),
        ([0.5, 0.25, 0.25], [0], "expected"),
        ([[0.5, 0.25, 0.25]], [0, 1], "expected"),
        (np.empty((0, 3)), [], "no image"),
        ([[0.5, 0.25, 0.25]], [3], r"integers in 0\.\.2"),
        ([[0.5, 0.25, 0.25]], [-1], r"integers in 0\.\.2"),
        ([[0.5, 0.25, 0.25]], [0.0], r"integers in 0\.\.2"),
        ([[np.nan, 0.5, 0.5]], [0], r"not a number in 0\.\.1"),
        ([[1.5, -0.5, 0.0]], [0], r"not a number in 0\.\.1"),
        ([[0.9, 0.9, 0.9]], [0], "do not sum to 1"),
    ],
)
def test_rejects_invalid_predictions(probabilities: object, targets: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(np.array(probabilities), np.array(targets), CLASSES)
