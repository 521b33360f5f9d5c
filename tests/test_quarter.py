"""The short form of `make quarter`: one week, and what is said of a week that goes another way."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

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
    assert other.wrong == ["decided: None", "messages: ['The model is stale'], planned: []"]
    assert not operation.pipeline.processes


def test_the_page_shows_what_ran_what_serves_and_what_went_wrong(tmp_path: Path) -> None:
    run = Run("id", "weekly_retrain", "SUCCESS", 20.4, MADE)
    good = Week(1, SUNDAY, "New <images>.", runs=[run], decision="released")
    good.served, good.age = "20261206T030000Z-0123abcd", 6.98
    failed = replace(run, status="FAILURE", assets={})
    bad = Week(2, SUNDAY, "Cut off.", runs=[failed], messages=["retrain failed"])
    bad.served, bad.wrong = good.served, ["another model serves"]
    page.write(tmp_path / "page.html", [good, bad], 90)
    text = (tmp_path / "page.html").read_text()
    for said in (
        *("New &lt;images&gt;.", "90 images, changed, dataset prepared, convnext_model trained"),
        *("weekly_retrain, 20 s", "7.0", "0123abcd", "failure"),
        *("retrain failed", "another model serves", "2 weeks"),
    ):
        assert said in text
    assert text.count('class="model m1"') == 2
    assert "<img" not in text
