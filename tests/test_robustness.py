"""The benchmark of robustness, with trainings that are none."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tiny

from benchmarks import robustness
from benchmarks.drops import tables
from cxr_assets.evaluation import bootstrap
from cxr_assets.evaluation.scanners import SCANNERS
from cxr_assets.experiment import Experiment, ExperimentError
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_assets.radiographs.dataset import DatasetRecord

COMMON = ["experiment=demo", "data.synthetic_patients=8", "data.image_size=32"]


def test_every_arm_is_tested_on_each_part_with_each_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[float, int, str]] = []

    def train(experiment: Experiment, layout: Layout, progress: Progress) -> Path:
        data = DatasetRecord.read(layout.processed).data_version
        trained.append((experiment.trainer.mixup, experiment.seed, data))
        now = datetime(2026, 1, 4, tzinfo=UTC) + timedelta(days=len(trained))
        return tiny.publish(layout, "convnext_model", tiny.convnext(), data, now=now)

    monkeypatch.setattr(robustness, "train", train)
    monkeypatch.setattr(bootstrap, "RESAMPLES", 40)
    monkeypatch.setenv("CXR_DATA_ROOT", str(tmp_path / "data"))
    given = ["the recipe=", "mixed=trainer.mixup=0.2"]
    arms = dict(robustness._arms(given, COMMON, [0, 1]))
    output = tmp_path / "robustness.json"
    results = robustness.run(arms, tmp_path, output, lambda line: None)
    assert [row[:2] for row in trained] == [(0, 0), (0.2, 0)] * 2 + [(0, 1), (0.2, 1)] * 2
    assert len({row[2] for row in trained}) == 2, "two parts"
    places = {Layout(tmp_path / f"left-out-{part}").embeddings.resolve() for part in (1, 2)}
    assert places == {tmp_path / "embeddings"}, "an image is embedded once"
    figures = json.loads(output.read_text())
    assert len(figures["trainings"]) == 8
    assert set(figures["trainings"][0]["scanners"]["scanners"]) == set(SCANNERS)
    text = tables(results)
    assert "NORMAL2-IM- and the upper person numbers" in text
    assert "adaptive equalisation" in text


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ("a=seed=3", "--seeds"),
        ("a=trainer.mixup=0,0.2", "several trainings"),
        ("a=trainer.mixin=0", "did you mean"),
    ],
)
def test_an_arm_that_cannot_be_meant_is_rejected(arm: str, reason: str) -> None:
    with pytest.raises(ExperimentError, match=reason):
        dict(robustness._arms([arm], COMMON, [0]))
