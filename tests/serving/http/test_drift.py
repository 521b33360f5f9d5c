from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cxr_serving.http.drift import Drift
from cxr_serving.http.metrics import Metrics
from cxr_serving.model.distribution import Distribution
from cxr_serving.model.predictor import Predictor

CLASSES = 3


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(120, 30, (300, 64, 64)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def model(tmp_path: Path, publish_bundle: Callable[..., Path], images: np.ndarray) -> Predictor:
    """Its validation images are the first half; a third of them is predicted as each class."""

    def refer(directory: Path) -> None:
        Distribution.of(images[:150], np.eye(CLASSES)[np.arange(150) % CLASSES]).write(directory)

    return Predictor(publish_bundle(tmp_path, 1, finish=refer), threads=1)


def samples(metrics: Metrics) -> dict[str, float]:
    return {
        sample.labels.get("of", sample.name): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name.startswith("cxr_drift")
    }


def test_images_like_those_of_validation_do_not_drift(model: Predictor, images: np.ndarray) -> None:
    metrics = Metrics()
    drift = Drift(metrics)
    for index, image in enumerate(images[150:]):
        drift.observe(model, image, index % CLASSES)
    assert samples(metrics)["cxr_drift_images"] == 150
    assert samples(metrics)["intensity"] < 0.01
    assert samples(metrics)["predictions"] < 0.01


def test_darker_images_and_one_sided_answers_drift(model: Predictor, images: np.ndarray) -> None:
    metrics = Metrics()
    drift = Drift(metrics)
    for image in images[150:]:
        drift.observe(model, image // 2, 0)
    assert samples(metrics)["intensity"] > 0.25
    assert samples(metrics)["predictions"] > 0.25


def test_few_images_are_not_judged_and_old_ones_are_dropped(
    model: Predictor, images: np.ndarray
) -> None:
    metrics = Metrics()
    drift = Drift(metrics)
    for image in images[:49]:
        drift.observe(model, image // 2, 0)
    assert "intensity" not in samples(metrics)
    for index in range(1000):
        drift.observe(model, images[index % 150], index % CLASSES)
    assert samples(metrics)["cxr_drift_images"] == 1000
    assert samples(metrics)["intensity"] < 0.01


def test_new_model_resets_drift_and_one_without_a_reference_has_none(
    tmp_path: Path, model: Predictor, images: np.ndarray, publish_bundle: Callable[..., Path]
) -> None:
    metrics = Metrics()
    drift = Drift(metrics)
    for image in images:
        drift.observe(model, image // 2, 0)
    other = Predictor(publish_bundle(tmp_path, 2), threads=1)
    drift.observe(other, images[0], 0)
    assert samples(metrics) == {"cxr_drift_images": 1}
    without = Predictor(
        publish_bundle(tmp_path, 3, finish=lambda d: (d / "distribution.json").unlink()), threads=1
    )
    drift.observe(without, images[0], 0)
    assert samples(metrics) == {"cxr_drift_images": 0}
