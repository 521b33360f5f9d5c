"""The figures of the benchmark of robustness."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from benchmarks.drops import Measured, content, tables
from cxr_assets.evaluation import bootstrap
from cxr_assets.layout import Layout
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.robustness import Loss, Robustness, Scanned

SIDES = ("in", "out", "drop")


def measured(inside: float, outside: float) -> Measured:
    """Draws about the estimates, from a tenth below to a tenth above."""
    spread = np.linspace(-0.1, 0.1, 1001)
    values = {"in": inside, "out": outside, "drop": inside - outside}
    metrics = ("macro_f1", "normal/recall", "other/recall")
    names = {f"{side}/{metric}": values[side] for side in SIDES for metric in metrics}
    draws = pd.DataFrame({name: value + spread for name, value in names.items()})
    areas = {f"{side}/auroc_macro_ovr": value for side, value in values.items()}
    return Measured(pd.Series(names | areas), draws)


def scanners(normal: float) -> Robustness:
    losses = {
        name: Loss(value=0.5, drop=drop, interval=None)
        for name, drop in (("normal", normal), ("other", 0.0))
    }
    scanned = Scanned(description="gamma", macro_f1=losses["normal"], recalls=losses, rejected=None)
    return Robustness(
        images=40,
        patients=30,
        macro_f1=0.8,
        recalls={"normal": 0.8, "other": 0.8},
        rejected=None,
        scanners={"low_contrast": scanned, "noisy": scanned},
    )


def results() -> pd.DataFrame:
    rows = [
        ("the recipe", "IM-", 0, measured(0.9, 0.6)),
        ("the recipe", "NORMAL2-", 0, measured(0.8, 0.5)),
        ("another", "IM-", 0, measured(0.9, 0.75)),
        ("another", "NORMAL2-", 0, measured(0.8, 0.7)),
        ("the recipe", "IM-", 1, measured(0.8, 0.6)),
        ("the recipe", "NORMAL2-", 1, measured(0.8, 0.5)),
        ("another", "IM-", 1, measured(0.9, 0.75)),
        ("another", "NORMAL2-", 1, measured(0.8, 0.7)),
    ]
    table = pd.DataFrame(rows, columns=["arm", "tested", "seed", "measured"])
    drops = {"the recipe": (0.1, 0.2), "another": (0.0, 0.1)}
    return table.assign(
        scanners=[
            scanners(drops[arm][seed])
            for arm, seed in zip(table["arm"], table["seed"], strict=True)
        ]
    )


def test_figures_are_means_over_seeds_then_over_parts_and_paired_with_the_first_arm() -> None:
    figures = json.loads(content(results()))
    means = {(row["arm"], row["tested"]): row for row in figures["means"]}
    assert [row["trainings"] for row in figures["means"]] == [2, 2, 4, 2, 2, 4]
    drop = means["the recipe", "IM-"]["figures"]["drop/macro_f1"]
    assert drop["estimate"] == pytest.approx(0.25)
    assert drop["interval"] == pytest.approx([0.25 - 0.095, 0.25 + 0.095])
    assert means["the recipe", "mean"]["figures"]["drop/macro_f1"]["estimate"] == 0.275
    assert means["the recipe", "mean"]["to_first_arm"] is None
    gained = means["another", "mean"]["to_first_arm"]["out/normal/recall"]
    assert gained["estimate"] == pytest.approx(0.175)
    assert gained["interval"] == pytest.approx([0.175, 0.175]), "draw by draw, no patient differs"
    assert means["another", "mean"]["figures"]["drop/auroc_macro_ovr"]["interval"] is None
    assert [row["seed"] for row in figures["trainings"]] == [0] * 4 + [1] * 4


def test_the_tables_show_macro_f1_recall_of_normal_and_auroc() -> None:
    text = tables(results())
    assert text.count("left out") == 3
    row = next(line for line in text.splitlines() if "the recipe" in line and "IM-" in line)
    assert "0.850 (0.755 to 0.945)" in row
    assert "0.250 (0.155 to 0.345)" in row
    assert "+0.175 (+0.175 to +0.175)" in text
    assert "normal: recall" in text
    lines = {re.sub(" +", " ", line) for line in text.splitlines()}
    assert "| low contrast | 0.150 | 0.050 | 0.150 | 0.050 |" in lines
    assert "| mean | 0.150 | 0.050 | 0.150 | 0.050 |" in lines
    assert "drop by simulated scanners, on 40 validation images" in text


def test_a_model_is_measured_on_validation_and_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 40)
    layout = Layout(tmp_path)
    torch.manual_seed(0)
    data = tiny.processed(layout, images=4)
    directory = tiny.publish(layout, "convnext_model", tiny.convnext(), data.data_version)
    found = Measured.of(Predictor(directory), layout.processed)
    for metric in ("macro_f1", "normal/recall", "auroc_macro_ovr"):
        inside, outside, drop = (found.estimates[f"{side}/{metric}"] for side in SIDES)
        assert drop == pytest.approx(inside - outside)
        assert 0 <= outside <= 1
    assert len(found.draws) == 40
    lost = found.draws["in/macro_f1"] - found.draws["out/macro_f1"]
    assert found.draws["drop/macro_f1"].tolist() == lost.tolist()
