import re
from datetime import date

from reporting import Page, report_on

from cxr_assets.evaluation.reports import latest_report
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DATASET_FILE, DatasetRecord
from cxr_serving.model.dataset import Change, Changes
from cxr_serving.model.report import Report


def test_the_page_needs_nothing_but_itself_and_says_what_it_is(reported: Layout) -> None:
    report = latest_report(reported)
    page = Page((report / "report.html").read_text())
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "Not a medical device" in page.text
    assert "synthetic images" in page.text
    assert (reported.reports / "report.html").read_bytes() == (report / "report.html").read_bytes()


def test_it_says_that_the_release_depends_on_these_images(reported: Layout) -> None:
    text = Page((reported.reports / "report.html").read_text()).text
    assert "the rule for release is judged on them" in " ".join(text.split())


def test_its_numbers_are_those_of_the_metrics(reported: Layout) -> None:
    report = latest_report(reported)
    metrics = Report.read(report)
    text = " ".join(Page((report / "report.html").read_text()).text.split())
    for one in metrics.models:
        for name in ("macro_f1", "accuracy", "auroc_macro_ovr", "average_precision_macro_ovr"):
            value, (low, high) = one.headline(name)
            assert f"{value:.3f} ({low:.3f} to {high:.3f})" in text
        for errors in (one.calibration.before, one.calibration.after):
            assert f"{errors.ece:.3f}" in text
    difference = metrics.comparison.macro_f1
    low, high = difference.interval
    assert f"{difference.estimate:.3f} ({low:.3f} to {high:.3f})" in text
    assert metrics.model.fingerprint in text
    assert metrics.images_sha256 in text


def test_subgroups_external_sources_and_changes_are_on_it(reported: Layout) -> None:
    data = DatasetRecord.read(reported.processed)
    changes = Changes(
        made_on=date(2026, 1, 4),
        since="b" * 64,
        total=Change(added=50, removed=2),
        classes={"normal": Change(added=50, removed=2)},
        sites={"north wing": Change(added=50)},
    )
    data = data.model_copy(update={"changes": changes, "unknown_patients": 12})
    (reported.processed / DATASET_FILE).write_text(data.model_dump_json())
    text = " ".join(Page((report_on(reported) / "report.html").read_text()).text.split())
    metrics = Report.read(reported.reports)
    for rows in (metrics.subgroups, metrics.external["outside"].subgroups):
        assert {"site", "sex", "age", "year"} <= {row.group for row in rows}
        for row in rows:
            mark = "*" if row.few else ""
            place = f"{row.group}{row.subgroup}{row.images}{row.patients}{mark}{row.accuracy:.3f}"
            assert place in text
    assert "* Fewer than 30 patients" in text
    assert "neither the metrics above nor a release depends on them" in text
    assert "outside 8 images of 8 patients" in text
    assert "The patients of 12 images of the dataset are unknown" in text
    assert "50 added (50 normal), 2 removed (2 normal)" in text
    assert "site north wing50" in text


def test_the_most_confident_errors_are_in_the_page_only(reported: Layout) -> None:
    report = latest_report(reported)
    page = (report / "report.html").read_text()
    shown = re.findall(r"(image-\d+\.png)</figcaption>", page)
    assert shown
    assert page.count("the same image with its class activation map") == len(shown)
    assert "image-" not in (report / "metrics.json").read_text()
