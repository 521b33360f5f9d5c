import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tiny
from damage import empty
from reporting import RELEASED, bundles

from cxr_assets import decisions
from cxr_assets.decisions import Decision
from cxr_assets.evaluation import past
from cxr_assets.evaluation.report import write_report
from cxr_assets.layout import Layout
from cxr_serving.model import bundle, store
from cxr_serving.model.report import Report


def lose(directory: Path) -> None:
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (f"{RELEASED}/model.safetensors", empty),
        (f"{RELEASED}/bundle.json", empty),
        ("latest.json", empty),
        (RELEASED, lose),
    ],
)
def test_a_broken_release_is_reported_and_the_next_report_is_made(
    file: str, damage: Callable[[Path], None], layout: Layout
) -> None:
    main = store.latest(layout.models("convnext_model"))
    shutil.copytree(main, layout.releases / RELEASED)
    store.write_pointer(layout.releases, RELEASED)
    damage(layout.releases / file)
    lines: list[str] = []
    baseline = store.latest(layout.models("dinov2_probe"))
    report = write_report(layout, main, baseline, lines.append)
    metrics = Report.read(report)
    assert metrics.regression is None
    assert metrics.not_compared == "it is broken"
    assert (
        "Not compared with the released model: it is broken."
        in (report / "report.html").read_text()
    )
    (said,) = [line for line in lines if line.startswith("not compared with the released model")]
    assert str(layout.releases / file) in said


@pytest.mark.parametrize("file", ["bundle.json", "model.safetensors"])
def test_a_broken_older_bundle_is_left_out_and_does_not_stop_the_report(
    file: str, layout: Layout
) -> None:
    main = store.latest(layout.models("convnext_model"))
    older = shutil.copytree(main, layout.models("convnext_model") / RELEASED)
    empty(Path(older) / file)
    (layout.reports / RELEASED).mkdir(parents=True)
    empty(layout.reports / RELEASED / "metrics.json")
    lines: list[str] = []
    baseline = store.latest(layout.models("dinov2_probe"))
    metrics = Report.read(write_report(layout, main, baseline, lines.append))
    assert metrics.regression is None
    assert metrics.not_compared is None
    scores = {row.version: row.test_macro_f1 for row in metrics.trend}
    assert scores.pop(main.name) == metrics.macro_f1
    said = [line for line in lines if line.startswith("left out of the trend")]
    assert len(said) == 1
    if file == "bundle.json":
        assert scores == {}
        assert str(Path(older) / file) in said[0]
    else:
        assert list(scores.values()) == [None]
        assert str(layout.reports / RELEASED / "metrics.json") in said[0]


def test_a_release_of_other_classes_is_not_compared(reported: Layout) -> None:
    two = tiny.convnext(("normal", "pneumonia"))
    released = tiny.publish(reported, "convnext_model", two, "d" * 64)
    reported.releases.mkdir(exist_ok=True)
    released.rename(reported.releases / released.name)
    store.write_pointer(reported.releases, released.name)
    main = reported.models("convnext_model") / Report.read(reported.reports).version
    report = write_report(reported, main, store.latest(reported.models("dinov2_probe")))
    assert Report.read(report).regression is None
    text = (report / "report.html").read_text()
    assert "Not compared with the released model: its classes are normal, pneumonia." in text


def test_the_released_model_is_evaluated_on_the_same_images(reported: Layout) -> None:
    main, baseline = bundles(reported)
    assert Report.read(reported.reports).regression is None
    data_version = bundle.BundleRecord.read(main).data_version
    tiny.publish(reported, "convnext_model", tiny.convnext(), data_version, pretrained="other")
    newer = store.latest(reported.models("convnext_model"))
    (reported.releases / main.name).parent.mkdir(exist_ok=True)
    main.rename(reported.releases / main.name)
    store.write_pointer(reported.releases, main.name)
    report = write_report(reported, newer, baseline)
    regression = Report.read(report).regression
    assert regression.released == main.name
    assert regression.same_data is True
    before = Report.read(reported.reports / main.name).macro_f1
    now = Report.read(report).macro_f1
    assert regression.macro_f1.estimate == pytest.approx(now - before, abs=2e-6)
    assert "Compared with the released model" in (report / "report.html").read_text()


def test_the_trend_has_every_training_that_is_kept(layout: Layout) -> None:
    main, baseline = bundles(layout)
    data_version = bundle.BundleRecord.read(main).data_version
    newer = tiny.publish(
        layout, "convnext_model", tiny.convnext(), data_version, pretrained="other"
    )
    trend = Report.read(write_report(layout, newer, baseline)).trend
    assert sorted(row.version for row in trend) == sorted([main.name, newer.name])
    scores = {row.version: row.test_macro_f1 for row in trend}
    assert scores[main.name] is None
    assert scores[newer.name] == Report.read(layout.reports).macro_f1


def test_bundles_of_an_earlier_format_do_not_stop_a_report(layout: Layout) -> None:
    main, baseline = bundles(layout)
    for old in (
        layout.models("convnext_model") / "20250101T000000Z-0123abcd",
        layout.releases / "20250101T000000Z-0123abcd",
    ):
        old.mkdir(parents=True)
        (old / "bundle.json").write_text('{"format_version": 1}')
    store.write_pointer(layout.releases, old.name)
    metrics = Report.read(write_report(layout, main, baseline))
    assert [row.version for row in metrics.trend] == [main.name]
    assert metrics.regression is None


def decided(layout: Layout, version: str, outcome: str) -> None:
    given = {"version": version, "decided_at": datetime(2026, 1, 9, tzinfo=UTC), "clauses": []}
    given |= {"champion": None, "decision": outcome, "by": None, "because": None, "pushed": None}
    decisions.record(layout, Decision.model_validate(given))


def test_a_deleted_pointer_hides_no_released_model(layout: Layout) -> None:
    main = store.latest(layout.models("convnext_model"))
    shutil.copytree(main, layout.releases / RELEASED)
    assert past.champion(layout, "convnext_model", main.name) is None
    decided(layout, RELEASED, "released")
    assert past.champion(layout, "convnext_model", main.name) == layout.releases / RELEASED
    shutil.rmtree(layout.releases / RELEASED)
    assert past.champion(layout, "convnext_model", main.name) is None


@pytest.mark.parametrize(("outcome", "released"), [("released", True), ("held", False)])
def test_the_trend_shows_as_released_what_was_not_held(
    outcome: str, released: bool, layout: Layout
) -> None:
    main = store.latest(layout.models("convnext_model"))
    shutil.copytree(main, layout.releases / main.name)
    decided(layout, main.name, outcome)
    [point] = past.trend(layout, "convnext_model", print)
    assert point.released is released
