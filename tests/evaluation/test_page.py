import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tiny
from command import CXR

from cxr_assets.evaluation.report import (
    latest_report,
    report_on_folder,
    write_report,
)
from cxr_assets.layout import Layout
from cxr_assets.radiographs import synthesis
from cxr_assets.radiographs.raw import RawDataError
from cxr_serving.model import bundle, store
from cxr_serving.model.report import Report, ReportError


class Page(HTMLParser):
    """The text of a page, and the addresses that it refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic images of thirty patients a class, as they come."""
    root = tmp_path_factory.mktemp("images")
    synthesis.make(root, 30, 0)
    return root


def bundles(layout: Layout) -> tuple[Path, Path]:
    return (
        store.latest(layout.models("convnext_model")),
        store.latest(layout.models("dinov2_probe")),
    )


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
    assert "a model is released only if it clearly exceeds the baseline" in " ".join(text.split())


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


def test_each_plot_comes_with_its_numbers(reported: Layout) -> None:
    report = latest_report(reported)
    plots = {path.stem for path in report.glob("*.png")}
    assert plots == {path.stem for path in report.glob("*.csv")} - {"predictions"}
    assert {"reliability", "abnormal_roc", "selective", "baseline_selective"} <= plots


def test_the_most_confident_errors_are_in_the_page_only(reported: Layout) -> None:
    report = latest_report(reported)
    page = (report / "report.html").read_text()
    shown = re.findall(r"(image-\d+\.png)</figcaption>", page)
    assert shown
    assert page.count("the same image with its class activation map") == len(shown)
    assert "image-" not in (report / "metrics.json").read_text()


def test_any_bundle_on_any_folder_without_dagster(
    layout: Layout, images: Path, tmp_path: Path
) -> None:
    main, baseline = bundles(layout)
    out = tmp_path / "out"
    ended = subprocess.run(
        [
            *(CXR, "evaluate"),
            *("--bundle", main, "--baseline", baseline, "--data", images, "--out", out),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert f"report: {out / 'report.html'}" in ended.stderr
    metrics = Report.read(out)
    assert metrics.images == len(list((images / "test").rglob("*.*")))
    assert metrics.shortcuts.border.gain == pytest.approx(
        metrics.macro_f1 - metrics.shortcuts.border.macro_f1, abs=1e-6
    )
    assert metrics.comparison.macro_f1.interval


def test_classes_that_a_folder_lacks_are_absent_and_broken_images_are_named(
    layout: Layout, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hospital" / "NORMAL"
    folder.mkdir(parents=True)
    for number, image in enumerate(sorted((images / "test" / "NORMAL").iterdir())):
        content = image.read_bytes()
        (folder / image.name).write_bytes(content if number else content[: len(content) // 2])
    main, _ = bundles(layout)
    out = report_on_folder(main, folder.parent, tmp_path / "out", None, lambda line: None)
    metrics = Report.read(out)
    assert metrics.absent_classes == ("bacterial_pneumonia", "viral_pneumonia")
    assert metrics.classification_report.classes["viral_pneumonia"].recall is None
    assert metrics.abnormal is None
    assert metrics.baseline is None
    [(path, why)] = metrics.skipped.items()
    assert path.startswith("NORMAL/")
    assert why.startswith("corrupt: ")
    text = Page((out / "report.html").read_text()).text
    assert "neither evaluated nor counted in any mean" in " ".join(text.split())
    assert path in text


def test_unknown_patients_of_a_folder_are_counted_and_reported(
    layout: Layout, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hospital" / "NORMAL"
    folder.mkdir(parents=True)
    paths = sorted((images / "test" / "NORMAL").iterdir())
    for number, image in enumerate(paths):
        name = f"scan {number}.jpeg" if number < 2 else image.name
        (folder / name).write_bytes(image.read_bytes())
    main, _ = bundles(layout)
    out = report_on_folder(main, folder.parent, tmp_path / "out", None, lambda line: None)
    metrics = Report.read(out)
    assert (metrics.unknown_patients, metrics.images) == (2, len(paths))
    text = " ".join(Page((out / "report.html").read_text()).text.split())
    assert "The patients of 2 of the evaluated images are unknown" in text
    assert "released only if" not in text, "no release depends on this folder"


def test_what_is_no_report_is_not_replaced(layout: Layout, images: Path, tmp_path: Path) -> None:
    main, _ = bundles(layout)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ReportError, match="name a new or an empty directory"):
        report_on_folder(main, images, tmp_path, None, lambda line: None)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_lies_beside_the_report_stays(layout: Layout, images: Path, tmp_path: Path) -> None:
    main, _ = bundles(layout)
    beside = tmp_path / "home" / ".report.old"
    leftover = tmp_path / "home" / ".report.123.partial"
    for directory in (beside, leftover):
        directory.mkdir(parents=True)
    report_on_folder(main, images, tmp_path / "home" / "report", None, lambda line: None)
    assert beside.exists()
    assert not leftover.exists()


def test_a_folder_without_images_is_rejected_with_what_was_expected(
    layout: Layout, tmp_path: Path
) -> None:
    main, _ = bundles(layout)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RawDataError, match="Expected NORMAL/ and PNEUMONIA/"):
        report_on_folder(main, tmp_path / "empty", tmp_path / "out", None, lambda line: None)


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
    assert "Compared with the last release" in (report / "report.html").read_text()


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
