import json
from pathlib import Path
from typing import Any

import pytest
import reports

from cxr_serving.http.schemas import TestMetrics as Shown
from cxr_serving.model.report import MissingReport, Report, ReportError, find_report

BUNDLE = Path("models") / "convnext_model" / reports.VERSION


def values(**changes: Any) -> bytes:
    return json.dumps(json.loads(reports.report().content()) | changes).encode()


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    reports.write(tmp_path / "report")
    assert Report.read(tmp_path / "report") == reports.report()
    assert Report.read(tmp_path / "report").content() == reports.report().content()


def test_a_model_without_a_report_has_none(tmp_path: Path) -> None:
    assert find_report(tmp_path, tmp_path / BUNDLE) is None
    with pytest.raises(MissingReport, match="materialise metrics_report first"):
        Report.read(tmp_path)


@pytest.mark.parametrize("released", [False, True])
def test_the_report_is_found_by_version_or_beside_the_release(
    tmp_path: Path, released: bool
) -> None:
    release = tmp_path / "releases" / reports.VERSION
    if released:
        reports.write(release)
    else:
        reports.publish(tmp_path, reports.VERSION)
    report = find_report(tmp_path, release if released else tmp_path / BUNDLE)
    assert report is not None
    shown = Shown.of(report)
    assert shown.images == 624
    assert set(shown.metrics) == {"accuracy", "macro_f1", "auroc_macro_ovr"}
    assert shown.metrics["macro_f1"].model_dump() == {"value": 0.75, "low": 0.6, "high": 0.8}


def test_a_metric_that_is_not_defined_is_left_out() -> None:
    assert "auroc_macro_ovr" not in Shown.of(reports.report(auroc_macro_ovr=None)).metrics


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"{", "contents"),
        (b"{}", "classification_report"),
        (values(intervals={}), "intervals.accuracy"),
        (values(images=-1.5), "images"),
        (values(macro_f1=None), "macro_f1"),
        (values(macro_f1=float("nan")), "macro_f1"),
        (values(radiograph=1), "radiograph"),
    ],
)
def test_a_broken_report_is_named_with_the_place(
    tmp_path: Path, content: bytes, place: str
) -> None:
    path = reports.publish(tmp_path, reports.VERSION, content)
    with pytest.raises(ReportError, match="materialise metrics_report again") as caught:
        find_report(tmp_path, tmp_path / BUNDLE)
    assert str(caught.value).startswith(f"{path} is not a report of this format ({place}")
    assert len(str(caught.value)) < 400
