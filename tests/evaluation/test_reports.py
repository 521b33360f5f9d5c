from pathlib import Path

import pytest

from cxr_assets import written
from cxr_assets.evaluation.reports import REPORT, latest_report, prune
from cxr_assets.layout import Layout
from cxr_serving.model import store
from cxr_serving.model.report import ReportError


def test_there_is_no_report_before_the_first_nor_when_it_was_deleted(tmp_path: Path) -> None:
    layout, version = Layout(tmp_path), "20260104T031500Z-1a2b3c4d"
    with pytest.raises(ReportError, match="materialise metrics_report first"):
        latest_report(layout)
    report = layout.reports / version
    report.mkdir(parents=True)
    store.write_pointer(layout.reports, version)
    with pytest.raises(ReportError, match="materialise metrics_report first"):
        latest_report(layout)
    (report / "metrics.json").touch()
    assert latest_report(layout) == report


def test_metrics_are_deleted_with_their_report_and_no_other_file(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    gone, *versions = [f"2026010{day}T031500Z-1a2b3c4d" for day in range(1, 6)]
    for version in versions:
        written.begin(layout.reports / version, REPORT)
        written.seal(layout.reports / version, REPORT)
    (layout.reports / versions[1] / "notes.txt").write_text("of somebody else")
    layout.metrics.mkdir()
    for name in (gone, *versions, "notes"):
        (layout.metrics / f"{name}.json").touch()
    prune(layout, keep=2)
    assert store.versions(layout.reports) == versions[1:]
    left = {path.stem for path in layout.metrics.iterdir()}
    assert left == {*versions[1:], "notes"}
