from pathlib import Path

import pytest

from cxr_assets.evaluation.reports import latest_report
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
