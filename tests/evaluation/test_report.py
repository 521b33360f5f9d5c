import functools
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import reporting
import tiny
from damage import empty
from filelock import FileLock, Timeout
from PIL import Image
from reporting import RELEASED, report_on
from tiny import CLASSES

from cxr_assets import written
from cxr_assets.evaluation import plots
from cxr_assets.evaluation.report import write_report
from cxr_assets.evaluation.reports import latest_report
from cxr_assets.layout import Layout
from cxr_assets.progress import StorageError
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import Report, ReportError, find_report

PICTURES = ("confusion_matrix.png", "roc_curves.png", "learning_curves.png")


def seen_by_the_service(layout: Layout) -> Report | None:
    """The report on the newest main model, as a service finds it that sees no reports."""
    reports = layout.reports.rename(layout.root / "out-of-sight")
    try:
        return find_report(layout.root, store.latest(layout.models("convnext_model")))
    finally:
        reports.rename(layout.reports)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_metrics_json_has_the_keys_and_numbers_of_the_record(reported: Layout) -> None:
    report = latest_report(reported)
    values = json.loads((report / "metrics.json").read_text())
    record = Report.read(report)
    assert values == record.model_dump(mode="json")
    # A reader outside of this project relies on these names.
    assert values["macro_f1"] == values["classification_report"]["macro avg"]["f1-score"]
    assert values["macro_f1"] == record.macro_f1
    assert values["intervals"]["macro_f1"] == list(record.intervals.macro_f1 or ())
    assert values["baseline"].keys() < values.keys()
    assert set(values["classification_report"]) == {
        *CLASSES, "accuracy", "macro avg", "weighted avg",
    }  # fmt: skip


def test_records_which_model_was_evaluated_on_which_images(reported: Layout) -> None:
    metrics = Report.read(latest_report(reported))
    main = Predictor(store.latest(reported.models("convnext_model"))).record
    for key in ("asset", "version", "fingerprint", "data_version", "pretrained", "synthetic"):
        assert getattr(metrics.model, key) == getattr(main, key)
    assert [model.model.asset for model in metrics.models] == ["convnext_model", "dinov2_probe"]
    assert metrics.version == main.version
    assert metrics.synthetic is True
    assert "Not a medical device" in metrics.disclaimer


def test_the_newest_report_is_at_the_top(reported: Layout) -> None:
    report = reported.reports / store.latest(reported.models("convnext_model")).name
    assert latest_report(reported) == report
    assert (reported.reports / "metrics.json").read_bytes() == (
        report / "metrics.json"
    ).read_bytes()
    for prefix in ("", "baseline_"):
        for name in PICTURES:
            with Image.open(report / f"{prefix}{name}") as picture:
                picture.verify()
                assert picture.format == "PNG"


def test_the_service_finds_the_metrics_and_no_picture(reported: Layout) -> None:
    assert seen_by_the_service(reported) == Report.read(latest_report(reported))
    assert [path.name for path in reported.metrics.iterdir()] == [
        f"{latest_report(reported).name}.json"
    ]


def test_the_metrics_are_there_before_a_pointer_names_the_report(
    reported: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = latest_report(reported).name
    (reported.reports / "latest.json").unlink()
    shutil.rmtree(reported.metrics)

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_pointer", killed)
    with pytest.raises(KeyboardInterrupt):
        report_on(reported)
    assert store.metrics_file(reported.root, version).exists()


def test_a_second_report_on_the_same_pair_replaces_the_first(reported: Layout) -> None:
    first = latest_report(reported)
    (first / "stale.png").write_bytes(b"stale")
    assert report_on(reported) == first
    assert not (first / "stale.png").exists()
    [aside] = reported.set_aside.iterdir()
    assert (aside / "stale.png").read_bytes() == b"stale"
    assert sorted(path.name for path in reported.reports.iterdir()) == sorted(
        [first.name, "latest.json", "metrics.json", "report.html"]
    )


def test_a_failure_while_writing_leaves_the_old_report(
    reported: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = latest_report(reported)
    (report / "roc_curves.png").unlink()  # so that it is made again
    before = contents(report)

    def full_disk(*args: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, "roc_curves", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        report_on(reported)
    assert contents(report) == before
    assert latest_report(reported) == report


def test_a_kill_while_writing_leaves_the_old_report_and_the_next_run_clears_up(
    reported: Layout,
) -> None:
    report = latest_report(reported)
    (report / "roc_curves.png").unlink()  # so that it is made again
    before = contents(report)

    def killed_while_drawing() -> None:
        plots.roc_curves = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
        report_on(reported)

    child = multiprocessing.get_context("fork").Process(target=killed_while_drawing)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert list(reported.reports.glob(".*.partial"))
    assert contents(report) == before
    assert Report.read(latest_report(reported))
    report_on(reported)
    assert not list(reported.reports.glob(".*"))


def test_a_report_is_reused_while_nothing_that_shapes_it_has_changed(reported: Layout) -> None:
    report = latest_report(reported)
    before = {path: path.stat().st_mtime_ns for path in report.iterdir()}
    for name in ("latest.json", "metrics.json", "report.html"):
        (reported.reports / name).unlink()
    store.metrics_file(reported.root, report.name).unlink()
    lines: list[str] = []
    assert report_on(reported, lines.append) == report
    assert lines == [
        f"reused the report on {report.name}: nothing that shapes it has changed",
    ]
    assert {path: path.stat().st_mtime_ns for path in report.iterdir()} == before
    assert latest_report(reported) == report
    for name in ("metrics.json", "report.html"):
        assert (reported.reports / name).read_bytes() == (report / name).read_bytes()
    assert seen_by_the_service(reported) == Report.read(report)


def _other_rule(layout: Layout, patch: pytest.MonkeyPatch) -> None:
    report = functools.partial(write_report, rule=tiny.RULE)
    patch.setattr(reporting, "write_report", report)


def _other_code(layout: Layout, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("cxr_assets.evaluation.report.code_version", lambda *modules: "f" * 64)


def _other_baseline(layout: Layout, patch: pytest.MonkeyPatch) -> None:
    version = Report.read(latest_report(layout)).data_version
    tiny.publish(layout, "dinov2_probe", tiny.dinov2(), version, pretrained="other")


def _earlier_training(layout: Layout, patch: pytest.MonkeyPatch) -> None:
    main = store.latest(layout.models("convnext_model"))
    shutil.copytree(main, layout.models("convnext_model") / RELEASED)


def _released_model(layout: Layout, patch: pytest.MonkeyPatch) -> None:
    main = store.latest(layout.models("convnext_model"))
    shutil.copytree(main, layout.releases / RELEASED)
    store.write_pointer(layout.releases, RELEASED)


def _other_record_of_the_images(layout: Layout, patch: pytest.MonkeyPatch) -> None:
    path = layout.processed / "dataset.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"unknown_patients": 1}))


def _damaged(layout: Layout, patch: pytest.MonkeyPatch) -> None:
    empty(latest_report(layout) / "predictions.csv")


@pytest.mark.parametrize(
    "change",
    [
        _other_rule, _other_code, _other_baseline, _earlier_training, _released_model,
        _other_record_of_the_images, _damaged,
    ],
)  # fmt: skip
def test_a_report_is_made_again_once_something_that_shapes_it_has_changed(
    change: Callable[[Layout, pytest.MonkeyPatch], None],
    reported: Layout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(reported, monkeypatch)
    for expected in (False, True):
        lines: list[str] = []
        report_on(reported, lines.append)
        assert any(line.startswith("reused the report") for line in lines) == expected


def test_a_report_is_not_reused_where_a_model_is_broken(reported: Layout) -> None:
    empty(store.latest(reported.models("dinov2_probe")) / "model.safetensors")
    with pytest.raises(BundleError, match="materialise dinov2_probe again"):
        report_on(reported)


def test_two_runs_do_not_write_reports_at_once(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would take the unfinished report of the other for a leftover."""
    swapped = written.replace

    def replace(*places: Any) -> None:
        with pytest.raises(Timeout), FileLock(layout.reports_lock, blocking=False):
            pass
        swapped(*places)

    monkeypatch.setattr(written, "replace", replace)
    assert report_on(layout).exists()


def test_a_bundle_trained_on_other_data_is_rejected(layout: Layout) -> None:
    main = tiny.publish(layout, "convnext_model", tiny.convnext(), "e" * 64)
    with pytest.raises(ReportError, match="materialise convnext_model again"):
        write_report(layout, main, store.latest(layout.models("dinov2_probe")))
    assert not layout.reports.exists()


@pytest.mark.parametrize("place", ["newest", "its own"])
def test_a_broken_report_is_named_and_made_again(place: str, reported: Layout) -> None:
    version = latest_report(reported)
    directory = reported.reports if place == "newest" else version
    before = Report.read(version)
    empty(directory / "metrics.json")
    with pytest.raises(ReportError, match="materialise metrics_report again"):
        Report.read(directory)
    report_on(reported)
    again = Report.read(directory)
    assert again == before.model_copy(update={"created_at": again.created_at})
    empty(reported.reports / "latest.json")
    with pytest.raises(BundleError, match="delete it, then materialise again"):
        latest_report(reported)
    report_on(reported)
    assert latest_report(reported) == version
