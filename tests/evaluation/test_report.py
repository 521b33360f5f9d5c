import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from PIL import Image
from tiny import CLASSES

from cxr_assets.evaluation import plots
from cxr_assets.evaluation.metrics import evaluate
from cxr_assets.evaluation.report import (
    latest_report,
    report_on_folder,
    write_report,
)
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DATASET_FILE, DatasetError
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import Preprocessing
from cxr_serving.model.report import Report, ReportError

PICTURES = ("confusion_matrix.png", "roc_curves.png", "learning_curves.png")


def report_on(layout: Layout) -> Path:
    return write_report(
        layout,
        store.latest(layout.models("convnext_model")),
        store.latest(layout.models("dinov2_probe")),
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_every_number_follows_from_the_predictions(layout: Layout) -> None:
    lines: list[str] = []
    main = store.latest(layout.models("convnext_model"))
    baseline = store.latest(layout.models("dinov2_probe"))
    report = write_report(layout, main, baseline, lines.append)
    metrics = Report.read(report)
    table = pd.read_csv(
        report / "predictions.csv", dtype={f"model_{c}": np.float32 for c in CLASSES}
    )
    assert len(table) == 27
    targets = np.array([CLASSES.index(name) for name in table["target"]])
    for role, part in zip(("model", "baseline"), metrics.models, strict=True):
        probabilities = table[[f"{role}_{name}" for name in CLASSES]].to_numpy(np.float32)
        for name, value in evaluate(probabilities, targets, CLASSES):
            assert getattr(part, name) == value
    assert metrics.baseline is not None
    assert metrics.margin == pytest.approx(metrics.macro_f1 - metrics.baseline.macro_f1, abs=1e-6)
    assert [line.split()[0] for line in lines] == ["convnext_model", "dinov2_probe"]


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


def test_each_test_image_is_decoded_once(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    main = store.latest(layout.models("convnext_model"))
    shutil.copytree(main, layout.releases / RELEASED)
    store.write_pointer(layout.releases, RELEASED)
    decoded: list[Path] = []
    decode = Preprocessing.decode

    def counted(self: Preprocessing, source: Path) -> np.ndarray:
        decoded.append(source)
        return decode(self, source)

    monkeypatch.setattr(Preprocessing, "decode", counted)
    report = report_on(layout)
    assert Report.read(report).regression is not None, "three models were evaluated"
    assert "class activation map" in (report / "report.html").read_text(), "errors are shown"
    assert sorted(decoded) == sorted((layout.processed / "test").rglob("*.png"))


def test_the_probabilities_are_those_of_the_serving_predictor(reported: Layout) -> None:
    report = latest_report(reported)
    table = pd.read_csv(report / "predictions.csv")
    predictor = Predictor(store.latest(reported.models("convnext_model")))
    for _, row in table.iloc[::5].iterrows():
        image = predictor.preprocessing.decode(reported.processed / row["path"])
        expected = predictor.predict(image[None])[0]
        assert row[[f"model_{name}" for name in CLASSES]].to_numpy(float) == pytest.approx(
            expected, abs=1e-5
        )


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
    before = contents(report)

    def full_disk(*args: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, "roc_curves", full_disk)
    with pytest.raises(OSError, match="No space left"):
        report_on(reported)
    assert contents(report) == before
    assert latest_report(reported) == report


def test_a_kill_while_writing_leaves_the_old_report_and_the_next_run_clears_up(
    reported: Layout,
) -> None:
    report = latest_report(reported)
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


def test_a_bundle_trained_on_other_data_is_rejected(layout: Layout) -> None:
    main = tiny.publish(layout, "convnext_model", tiny.convnext(), "e" * 64)
    with pytest.raises(ReportError, match="materialise convnext_model again"):
        write_report(layout, main, store.latest(layout.models("dinov2_probe")))
    assert not layout.reports.exists()


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="materialise processed_dataset first"):
        write_report(Layout(tmp_path), tmp_path, tmp_path)


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_a_damaged_test_image_is_named(layout: Layout, damage: str) -> None:
    image = layout.processed / "test" / "normal" / "image-3.png"
    if damage == "missing":
        image.unlink()
    else:
        image.write_bytes(image.read_bytes()[:80])
    with pytest.raises(ReportError, match="materialise processed_dataset again") as caught:
        report_on(layout)
    assert "image-3.png" in str(caught.value)


def test_a_count_that_does_not_fit_the_manifest_is_rejected(layout: Layout) -> None:
    path = layout.processed / DATASET_FILE
    record = json.loads(path.read_text())
    record["counts"]["test"]["normal"] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(ReportError, match=r"lists 27 test images, dataset\.json counts 28"):
        report_on(layout)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose(directory: Path) -> None:
    shutil.rmtree(directory)


RELEASED = "20260101T000000Z-00000000"


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
    assert metrics.not_compared == "the last release is broken"
    assert "Not compared: the last release is broken." in (report / "report.html").read_text()
    (said,) = [line for line in lines if line.startswith("not compared with the last release")]
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


def test_there_is_no_report_before_the_first(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="materialise metrics_report first"):
        latest_report(Layout(tmp_path))


def tree(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def notes(place: Path) -> None:
    (place / "notes.txt").write_text("mine")


def edit(place: Path) -> None:
    (place / "metrics.json").write_text("{}")


@pytest.fixture
def folder(layout: Layout, tmp_path: Path) -> Path:
    """Images of a folder in the raw layout."""
    directory = tmp_path / "images"
    for label, name in (("NORMAL", "IM-{}-0001.png"), ("PNEUMONIA", "person{}_virus_1.png")):
        (directory / label).mkdir(parents=True)
        for number, path in enumerate(sorted(layout.processed.glob("test/normal/*.png"))[:2], 1):
            shutil.copyfile(path, directory / label / name.format(number))
    return directory


def evaluate_on(folder: Path, layout: Layout, out: Path) -> Path:
    main = store.latest(layout.models("convnext_model"))
    return report_on_folder(main, folder, out, None, lambda line: None)


def test_an_evaluation_replaces_an_earlier_one_and_nothing_else(
    reported: Layout, folder: Path, tmp_path: Path
) -> None:
    out = evaluate_on(folder, reported, tmp_path / "my evaluation")
    assert evaluate_on(folder, reported, out) == out
    version = store.latest(reported.models("convnext_model"))
    release = shutil.copytree(version, reported.releases / version.name)
    (release / "metrics.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    notes(tmp_path / "notes")
    edited, extended = (shutil.copytree(out, tmp_path / name) for name in ("edited", "extended"))
    edit(edited)
    notes(extended)
    everything = tree(tmp_path)
    for place in (
        reported.reports,
        reported.reports / version.name,
        reported.releases / version.name,
        reported.processed,
        version,
        version / "evaluation",
        folder / "evaluation",
        tmp_path / "notes",
        tmp_path / "notes" / "notes.txt",
        edited,
        extended,
    ):
        with pytest.raises(ReportError, match="name a new or an empty directory with --out"):
            evaluate_on(folder, reported, place)
        assert tree(tmp_path) == everything
