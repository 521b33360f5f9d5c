"""The short form of `make quarter`: one week, and what is said of a week that goes another way."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import tiny

from benchmarks.unattended import page, quarter
from benchmarks.unattended.operation import Operation
from benchmarks.unattended.page import Week
from benchmarks.unattended.pipeline import Run

SETTINGS = (
    *("data.image_size=32", "data.test_fraction=0.25", "data.val_fraction=0.25"),
    "model=convnextv2_demo",
    *(*tiny.NETWORKS, "trainer.max_epochs=1", *tiny.LIMITS),
)
SUNDAY = datetime(2026, 12, 6, 3, tzinfo=UTC)
MADE = {
    "raw_kaggle": {"images": 90, "unchanged": False},
    "processed_dataset": {"reused": False},
    "convnext_model": {"outcome": "published"},
    "dinov2_probe": {"outcome": "reused 20261206T030000Z-0123abcd"},
}

REUSED = {"processed_dataset": {"reused": True}}


def test_a_week_is_lived_and_one_that_goes_another_way_is_named(tmp_path: Path) -> None:
    def unplanned(operation: Operation) -> None:
        """Nothing happens, but a model is expected."""
        quarter._released(operation)

    with Operation(tmp_path / "quarter", 10, SETTINGS, patience=10) as operation:
        week = quarter.live(operation, quarter.first)
        other = quarter.live(operation, unplanned)
    assert not week.wrong
    assert week.decision == "released"
    assert week.served == week.released
    (run,) = week.runs
    assert run.by == "weekly_retrain"
    # It has imported torch.
    assert run.processor_seconds > 1
    assert other.wrong == ["decided: None", "messages: ['The model is stale'], planned: []"]
    assert not operation.pipeline.processes


@pytest.mark.parametrize(
    ("seconds", "processor_seconds", "wrong"),
    [(29, 11, None), (31, 11, None), (61, 11, "61 s in all"), (31, 31, "31 s of processor time")],
)
def test_patience_is_not_for_processor_time(
    seconds: float, processor_seconds: float, wrong: str | None
) -> None:
    run = Run("id", None, "SUCCESS", seconds, REUSED, processor_seconds)
    week = Week(1, SUNDAY, "")
    operation = SimpleNamespace(pipeline=SimpleNamespace(patience=2), week=week)
    with nullcontext() if wrong is None else pytest.raises(quarter.Deviation, match=wrong):
        quarter._reused(cast(Operation, operation), run)
    assert bool(week.notes) == (seconds > 30)


def test_the_page_shows_what_ran_what_serves_and_what_went_wrong(tmp_path: Path) -> None:
    run = Run("id", "weekly_retrain", "SUCCESS", 20.4, MADE, 11.3)
    good = Week(1, SUNDAY, "New <images>.", runs=[run], decision="released")
    good.served, good.age = "20261206T030000Z-0123abcd", 6.98
    failed = replace(run, status="FAILURE", assets={})
    bad = Week(2, SUNDAY, "Cut off.", runs=[failed], messages=["retrain failed"])
    bad.served, bad.wrong = good.served, ["another model serves"]
    page.write(tmp_path / "page.html", [good, bad], 90)
    text = (tmp_path / "page.html").read_text()
    for said in (
        *("New &lt;images&gt;.", "90 images, changed, dataset prepared, convnext_model trained"),
        *("weekly_retrain, 20 s, 11 s of processor time", "7.0", "0123abcd", "failure"),
        *("retrain failed", "another model serves", "2 weeks"),
    ):
        assert said in text
    assert text.count('class="model m1"') == 2
    assert "<img" not in text
