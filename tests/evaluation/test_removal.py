import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from cxr_assets import written
from cxr_assets.evaluation.removal import remove_absent
from cxr_assets.evaluation.reports import REPORT, latest_report
from cxr_assets.layout import Layout
from cxr_assets.radiographs import withdrawal
from cxr_serving.model.report import Report, ReportError

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def radiographs(reported: Layout) -> Layout:
    """As if the images were those of patients."""
    path = reported.processed / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"synthetic": False}))
    return reported


def predictions(layout: Layout) -> pd.DataFrame:
    return pd.read_csv(latest_report(layout) / "predictions.csv")


def shown(layout: Layout) -> pd.Series:
    """The image, of those in the predictions, of the first picture of the page."""
    page = (latest_report(layout) / "report.html").read_text()
    [image, *_] = [image for image in predictions(layout)["sha256"] if f'"{image}"' in page]
    table = predictions(layout)
    return table[table["sha256"] == image].iloc[0]


def leave(layout: Layout, image: str) -> None:
    """The image is no longer in the manifest."""
    path = layout.processed / "manifest.parquet"
    table = pd.read_parquet(path)
    table[table["sha256"] != image].to_parquet(path)


def test_an_image_that_left_is_in_no_table_and_on_no_page(radiographs: Layout) -> None:
    report, image = latest_report(radiographs), shown(radiographs)
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    numbers = (report / "predictions.csv").read_text().splitlines()
    leave(radiographs, image["sha256"])
    assert remove_absent(radiographs) == [report]
    left = (report / "predictions.csv").read_text().splitlines()
    assert left == [line for line in numbers if image["sha256"] not in line]
    page = (report / "report.html").read_text()
    assert image["sha256"] not in page
    assert page.count("data:image") < before["report.html"].count(b"data:image")
    assert page.count("The image was removed") == 1
    assert (radiographs.reports / "report.html").read_text() == page
    changed = {"predictions.csv", "report.html", written.RECORD_FILE}
    assert {p.name: p.read_bytes() for p in report.iterdir() if p.name not in changed} == {
        name: content for name, content in before.items() if name not in changed
    }
    assert Report.read(report).images == len(numbers) - 1, "the metrics are as measured"


def test_the_record_of_the_report_stays_valid_and_a_repetition_does_nothing(
    radiographs: Layout,
) -> None:
    report, image = latest_report(radiographs), shown(radiographs)
    leave(radiographs, image["sha256"])
    remove_absent(radiographs)
    assert written.fault(report) is None
    assert written.foreign(report, REPORT) is None
    before = (report / written.RECORD_FILE).stat().st_mtime_ns
    assert remove_absent(radiographs) == []
    assert (report / written.RECORD_FILE).stat().st_mtime_ns == before


def test_an_image_on_record_is_removed_whatever_the_dataset_lists(reported: Layout) -> None:
    image = predictions(reported)["sha256"].iloc[0]
    withdrawal.record(reported, "synthetic/a", [image], NOW)
    assert remove_absent(reported) == [latest_report(reported)]
    assert image not in set(predictions(reported)["sha256"])


def test_nothing_is_removed_when_the_source_is_another(radiographs: Layout) -> None:
    path = radiographs.processed / "manifest.parquet"
    table = pd.read_parquet(path)
    table.assign(sha256=table["sha256"].str[::-1]).to_parquet(path)
    assert remove_absent(radiographs) == []
    table.assign(source="other").to_parquet(path)
    assert remove_absent(radiographs) == []


def test_without_a_dataset_nothing_has_left(tmp_path: Path) -> None:
    assert remove_absent(Layout(tmp_path)) == []


def test_a_report_with_a_file_of_somebody_else_is_cleaned_and_their_file_kept(
    radiographs: Layout,
) -> None:
    report, image = latest_report(radiographs), shown(radiographs)
    (report / "notes.txt").write_text("mine")
    leave(radiographs, image["sha256"])
    assert remove_absent(radiographs) == [report]
    assert (report / "notes.txt").read_text() == "mine"
    assert "added by someone else" in str(written.foreign(report, REPORT))


def test_a_report_that_was_set_aside_is_cleaned_too(radiographs: Layout) -> None:
    report, image = latest_report(radiographs), shown(radiographs)
    radiographs.set_aside.mkdir()
    aside = report.rename(radiographs.set_aside / f"{report.name}-20260101T000000Z")
    leave(radiographs, image["sha256"])
    assert remove_absent(radiographs) == [aside]
    assert image["sha256"] not in (aside / "report.html").read_text()
    assert not (radiographs.reports / "report.html").exists(), "a copy of a page that is gone"


def test_a_report_that_cannot_be_changed_is_named(radiographs: Layout) -> None:
    report, image = latest_report(radiographs), shown(radiographs)
    (report / written.RECORD_FILE).unlink()
    leave(radiographs, image["sha256"])
    with pytest.raises(ReportError, match=rf"{report.name} .*delete them"):
        remove_absent(radiographs)
