"""What a model loses to simulated scanners."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cohort import CLASSES
from reporting import Page, bundles

from cxr_assets.evaluation import inference, robustness
from cxr_assets.evaluation.images import Images, validation_split
from cxr_assets.evaluation.reports import latest_report
from cxr_assets.evaluation.scanners import SCANNERS
from cxr_assets.evaluation.wording import score, words
from cxr_assets.layout import Layout
from cxr_serving.model.gate import Verdict
from cxr_serving.model.predictor import Answers, Predictor
from cxr_serving.model.report import Report

GOOD, BAD = Verdict(()), Verdict(("not_chest",))


def answers(classes: list[int], rejected: int = 0) -> Answers:
    verdicts = [BAD] * rejected + [GOOD] * (len(classes) - rejected)
    return Answers(np.eye(3, dtype=np.float32)[classes], None, verdicts)


def test_drops_are_paired_and_intervals_are_over_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = [0] * 10 + [1] * 10
    table = pd.DataFrame(
        {
            "class": [CLASSES[target] for target in targets],
            "path": "image.png",
            "patient": [f"patient {number}" for number in range(20)],
        }
    )
    images = Images(Path(), table, "radiographs", None, False, {})
    # Unchanged all right; darkened, five of ten normal images are called viral; brightened none.
    darker = [0] * 10 + [1] * 5 + [2] * 5
    said = {"darker": answers(darker, 3), "brighter": answers(targets)}
    monkeypatch.setattr(robustness, "SCANNERS", {name: SCANNERS[name] for name in said})
    monkeypatch.setattr(robustness, "scan", lambda name, pixels: name)
    predictor: Any = SimpleNamespace(
        record=SimpleNamespace(classes=CLASSES), answer=lambda name: said[name]
    )

    def predict(predictors: Any, paths: Any, observe: inference.Observer) -> list[Any]:
        observe(np.zeros((20, 4, 4), np.uint8), answers(targets, 1))
        return []

    monkeypatch.setattr(inference, "predict", predict)
    found = robustness.robustness(predictor, images)
    assert (found.images, found.patients, found.rejected) == (20, 20, 1)
    assert found.macro_f1 == 1
    assert found.recalls == {"bacterial_pneumonia": 1, "normal": 1}, "no image is viral"
    dark = found.scanners["darker"]
    assert dark.rejected == 3
    # F1 of normal: 2 * 5 / (10 + 5); that of bacterial stays 1.
    assert dark.macro_f1.value == pytest.approx((1 + 2 / 3) / 2, abs=1e-6)
    assert dark.macro_f1.drop == pytest.approx(1 / 6, abs=1e-6)
    assert dark.recalls["normal"].drop == 0.5
    assert dark.most_affected == "normal"
    low, high = dark.recalls["normal"].interval or (0, 0)
    # Binomial with about ten images: a standard deviation of 0.16.
    assert low == pytest.approx(0.5 - 1.96 * 0.16, abs=0.07)
    assert high == pytest.approx(0.5 + 1.96 * 0.16, abs=0.07)
    assert dark.recalls["bacterial_pneumonia"].interval == (0, 0)
    bright = found.scanners["brighter"].macro_f1
    assert (bright.value, bright.drop, bright.interval) == (1, 0, (0, 0)), "paired: no chance"


def test_a_large_split_is_sampled_evenly(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "_IMAGES", 2)
    found = robustness.robustness(Predictor(bundles(layout)[0]), validation_split(layout.processed))
    assert (found.images, found.patients) == (2, 2)


def test_the_report_says_what_each_scanner_costs(reported: Layout) -> None:
    directory = latest_report(reported)
    found = Report.read(directory).robustness
    assert found is not None
    assert set(found.scanners) == set(SCANNERS)
    assert found.images == len(validation_split(reported.processed).table)
    assert found.rejected is not None
    text = " ".join(Page((directory / "report.html").read_text()).text.split())
    for name, row in found.scanners.items():
        drop = score(row.macro_f1.drop, row.macro_f1.interval)
        shown = f"{words(name)}{row.description}{score(row.macro_f1.value)}{drop}"
        assert shown in text.replace("\N{NO-BREAK SPACE}", " ")
