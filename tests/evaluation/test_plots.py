from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import reports
from PIL import Image

from cxr_assets.evaluation import operating, plots
from cxr_assets.evaluation.metrics import evaluate, roc
from cxr_assets.evaluation.reliability import reliability
from cxr_serving.model.report import TrendPoint

CLASSES = ("bacterial_pneumonia", "normal", "viral_pneumonia")
RNG = np.random.default_rng(0)
PROBABILITIES = RNG.dirichlet([1, 1, 1], 30)
TARGETS = RNG.integers(0, 2, 30)  # no viral image
METRICS = evaluate(PROBABILITIES, TARGETS, CLASSES)
CURVE = pd.DataFrame(
    {"epoch": [0, 1], "train_loss": [2.0, 1.0], "val_macro_f1": [0.4, 0.6], "lr": [1e-3, 0.0]}
)
TREND = [
    TrendPoint(
        version=f"202601{day}T000000Z-00000000",
        created_at=datetime(2026, 1, int(day), tzinfo=UTC),
        data_version="d" * 64,
        seed=0,
        validation_macro_f1=0.7,
        test_macro_f1=test,
        released=test is None,
    )
    for day, test in (("01", None), ("08", 0.75))
]
IMAGES = {name: [RNG.integers(0, 256, (32, 40), dtype=np.uint8)] * 2 for name in CLASSES}


@pytest.fixture(autouse=True)
def _quick_reports() -> None:
    """Plots as users see them: the fixture of this name leaves them blank."""


@pytest.mark.parametrize(
    "draw",
    [
        lambda synthetic: plots.confusion_matrix(METRICS, "a model", synthetic),
        lambda synthetic: plots.roc_curves(
            roc(PROBABILITIES, TARGETS, CLASSES), METRICS, "a model", synthetic
        ),
        lambda synthetic: plots.abnormal_roc(
            operating.abnormal_roc(PROBABILITIES, TARGETS, CLASSES),
            operating.abnormal(PROBABILITIES, TARGETS, CLASSES),
            "a model",
            synthetic,
        ),
        lambda synthetic: plots.reliability(
            reliability(PROBABILITIES, TARGETS),
            reliability(PROBABILITIES, TARGETS),
            reports.of_model().calibration,
            "a model",
            synthetic,
        ),
        lambda synthetic: plots.selective(
            operating.selective(PROBABILITIES, TARGETS), "a model", synthetic
        ),
        lambda synthetic: plots.trend(TREND, "a model", synthetic),
        lambda synthetic: plots.learning_curves(CURVE, "a model", synthetic),
        lambda synthetic: plots.image_grid(IMAGES, "some images", synthetic),
    ],
    ids=[
        "confusion_matrix",
        "roc_curves",
        "abnormal_roc",
        "reliability",
        "selective",
        "trend",
        "learning_curves",
        "image_grid",
    ],
)
def test_each_plot_is_a_picture_that_says_whether_images_are_synthetic(
    draw: Callable[[bool], bytes],
) -> None:
    real, synthetic = draw(False), draw(True)
    assert draw(True) == synthetic, "the same numbers must give the same bytes"
    assert real != synthetic, "the title must say what the images are"
    for png in (real, synthetic):
        with Image.open(BytesIO(png)) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.width > 500
