import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from radiographs import prepared

import cxr
from cxr_assets import forgetting, written
from cxr_assets.evaluation.reports import REPORT
from cxr_assets.forgetting import Forgotten, UnknownPatient, forget, forget_absent
from cxr_assets.layout import Layout
from cxr_assets.learning import cache
from cxr_assets.radiographs import dataset, membership, preparation, withdrawal
from cxr_serving.model import store

NOW = datetime(2026, 3, 1, tzinfo=UTC)
VERSION = "20260104T031500Z-1a2b3c4d"
PATIENT = "folder/normal/IM-0010"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Layout]:
    """A folder of images, and a data root with all that a run leaves of them, but no network."""
    root = tmp_path_factory.mktemp("untouched")
    source, layout = prepared.twelve_patients(root / "source"), Layout(root / "data")
    prepared.make(source, layout)
    images = dataset.manifest(layout.processed)
    layout.embeddings.mkdir()
    for name in ("a", "b"):
        rows = {image: np.zeros(2, np.float32) for image in images["sha256"]}
        cache.save(layout.embeddings / f"{name * 32}.safetensors", rows)
    for place in (layout.models("convnext_model"), layout.releases):
        (place / VERSION).mkdir(parents=True)
        membership.write(place / VERSION, layout.processed)
    report = layout.reports / VERSION
    written.begin(report, REPORT)
    test = images[images["split"] == "test"]
    test[["source", "patient", "sha256"]].to_csv(report / "predictions.csv", index=False)
    figures = (f'<figure data-images="{image}">x</figure>' for image in test["sha256"])
    (report / "report.html").write_text("".join(figures))
    written.seal(report, REPORT)
    store.write_pointer(layout.reports, VERSION)
    return source, layout


@pytest.fixture
def source(tmp_path: Path, untouched: tuple[Path, Layout]) -> Path:
    return Path(shutil.copytree(untouched[0], tmp_path / "source"))


@pytest.fixture
def layout(tmp_path: Path, untouched: tuple[Path, Layout]) -> Layout:
    return Layout(Path(shutil.copytree(untouched[1].root, tmp_path / "data")))


def run(layout: Layout, patient: str = PATIENT) -> Forgotten:
    return forget(layout, patient, prepared.silent, NOW)


def hashes(layout: Layout, patient: str) -> set[str]:
    images = dataset.manifest(layout.processed)
    return set(images.loc[images["patient"] == patient, "sha256"])


def holding(layout: Layout, images: set[str]) -> list[str]:
    """The files that hold one of the images, by hash or by content."""
    manifest = dataset.manifest(layout.processed).query("kept")
    found = list(manifest.loc[manifest["sha256"].isin(images), "file"])
    found += [
        f"gone: {file}" for file in manifest["file"] if not (layout.processed / file).exists()
    ]
    for path in layout.embeddings.glob("*.safetensors"):
        found += [path.name for image in cache.load(path, print) if image in images]
    for path in layout.reports.rglob("*"):
        text = path.read_text() if path.is_file() else ""
        found += [path.name for image in images if image in text]
    return found


def test_a_forgotten_patient_is_in_no_dataset_embedding_or_report(layout: Layout) -> None:
    images = hashes(layout, PATIENT)
    before = dataset.DatasetRecord.read(layout.processed)
    pngs = set(layout.processed.rglob("*.png"))
    assert len(holding(layout, images)) > 2 + 2 * 2
    done = run(layout)
    assert holding(layout, images) == []
    assert len(pngs - set(layout.processed.rglob("*.png"))) == 2
    assert (done.new, done.prepared, done.embedded) == (True, 2, 4)
    assert done.reports == [layout.reports / VERSION]
    assert withdrawal.withdrawn(layout) == {PATIENT}
    after = dataset.verify(layout.processed)
    assert after.counts["test"]["normal"] == before.counts["test"]["normal"] - 2
    assert after.sources["folder"]["test"] == before.sources["folder"]["test"] - 2
    assert after.skipped == {"withdrawn": 2}
    assert after.changes is not None
    assert after.changes.total.removed == 2
    assert after.data_version != before.data_version, "no earlier model belongs to it"
    assert written.foreign(layout.processed, preparation.KIND) is None
    assert written.foreign(layout.reports / VERSION, REPORT) is None


def test_models_that_know_the_images_are_named_with_the_split(layout: Layout) -> None:
    (layout.models("dinov2_probe") / VERSION).mkdir(parents=True)
    done = run(layout)
    assert done.trained == {
        layout.models("convnext_model") / VERSION: {"test": 2},
        layout.releases / VERSION: {"test": 2},
    }
    assert done.unclear == [layout.models("dinov2_probe") / VERSION]


def test_a_repetition_changes_nothing_and_lists_the_models_again(layout: Layout) -> None:
    first = run(layout)
    state = {p: p.stat().st_mtime_ns for p in layout.root.rglob("*") if p.is_file()}
    again = run(layout)
    unlike = {"new": True, "prepared": 2, "embedded": 4, "reports": first.reports}
    assert replace(again, **unlike) == first
    assert (again.new, again.prepared, again.embedded, again.reports) == (False, 0, 0, [])
    changed = [path for path, time in state.items() if path.stat().st_mtime_ns != time]
    assert not [path for path in changed if path.suffix != ".lock" and path.name != ".lock"]


@pytest.mark.parametrize("step", ["removal.remove", "cache.forget", "remove_absent"])
def test_after_a_kill_the_same_command_does_the_rest(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    images = hashes(layout, PATIENT)
    with monkeypatch.context() as patch:
        patch.setattr(f"cxr_assets.forgetting.{step}", _killed)
        with pytest.raises(KeyboardInterrupt):
            run(layout)
    done = run(layout)
    assert holding(layout, images) == []
    assert len(done.trained) == 2


def _killed(*args: object) -> None:
    raise KeyboardInterrupt


def test_a_killed_replacement_of_the_dataset_leaves_nothing_behind(layout: Layout) -> None:
    images = hashes(layout, PATIENT)
    retired = layout.root / ".processed.1.retired"
    shutil.copytree(layout.processed, retired)
    run(layout)
    assert not retired.exists()
    assert holding(layout, images) == []


def test_no_later_run_takes_the_images_again_whoever_s_they_are_said_to_be(
    layout: Layout, source: Path
) -> None:
    patient = "folder/normal/IM-0001"
    images = hashes(layout, patient)
    run(layout, patient)
    [file, *_] = source.glob("train/NORMAL/IM-0001-*")
    shutil.copy(file, source / "train/NORMAL/IM-0099-0001.jpeg")
    prepared.make(source, layout)
    manifest = dataset.manifest(layout.processed)
    theirs = manifest[manifest["sha256"].isin(images)]
    assert len(theirs) == 3
    assert not theirs["kept"].any()
    assert set(theirs["reason"]) == {withdrawal.WITHDRAWN}
    assert forget_absent(layout, prepared.silent) == (0, [])
    assert holding(layout, images) == []


def test_an_image_that_left_the_folder_leaves_embeddings_and_reports_with_the_next_run(
    layout: Layout, source: Path
) -> None:
    images = hashes(layout, PATIENT)
    [file, _] = source.glob("test/NORMAL/IM-0010-*")
    gone = sha256(file.read_bytes()).hexdigest()
    file.unlink()
    prepared.make(source, layout)
    assert forget_absent(layout, prepared.silent) == (2, [layout.reports / VERSION])
    assert holding(layout, {gone}) == []
    assert holding(layout, images - {gone}) != []
    assert forget_absent(layout, prepared.silent) == (0, [])


@pytest.mark.parametrize("name", ["normal/IM-0010", PATIENT])
def test_the_source_need_not_be_named_where_it_is_clear(layout: Layout, name: str) -> None:
    assert run(layout, name).patient == PATIENT


def test_a_patient_of_two_sources_must_be_told_apart(layout: Layout) -> None:
    withdrawal.record(layout, "clinic/normal/IM-0010", [], NOW)
    with pytest.raises(UnknownPatient, match="clinic/normal/IM-0010 or folder/normal/IM-0010"):
        run(layout, "normal/IM-0010")
    assert run(layout, PATIENT).new


def test_an_unknown_patient_changes_nothing_and_names_nobody(layout: Layout) -> None:
    with pytest.raises(UnknownPatient) as raised:
        run(layout, "normal/im-0010")
    message = str(raised.value)
    assert re.search("none of the 12 patients .* 4 have a similar name", message)
    assert "IM-0010" not in message
    assert not layout.withdrawn.exists()
    with pytest.raises(UnknownPatient, match="of the 0 patients"):
        forget(Layout(layout.root / "new"), "A", prepared.silent, NOW)


def test_it_waits_while_images_are_prepared(layout: Layout) -> None:
    lock = FileLock(layout.processed_lock)
    lock.acquire()
    lines: list[str] = []

    def progress(line: str) -> None:
        lines.append(line)
        lock.release()

    assert forget(layout, PATIENT, progress, NOW).prepared == 2
    assert len(lines) == 1
    assert "waiting for" in lines[0]


def test_what_may_still_hold_the_images_is_named(layout: Layout) -> None:
    aside = layout.set_aside / "processed-20260101T000000Z"
    shutil.copytree(layout.processed, aside)
    broken = layout.root / "processed.broken"
    broken.mkdir()
    running = layout.work("a" * 16).with_suffix(".lock")
    running.parent.mkdir()
    FileLock(running.with_name("finished.lock")).acquire().lock.release()
    with FileLock(running):
        done = run(layout)
    assert done.aside == [broken, aside]
    assert done.running == [running]


@pytest.fixture
def configured(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("CXR_DATA_ROOT", str(layout.root))
    return layout


def command(patient: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        cxr.main(["data", "forget", patient])
    return stop.value.code


def test_the_command_says_what_was_removed_and_which_models_know_the_images(
    configured: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("normal/IM-0010") == 0
    said = capsys.readouterr().out
    assert (
        f"The withdrawal of folder/normal/IM-0010 is now on record: {configured.withdrawn}" in said
    )
    assert "from the dataset     2 images" in said
    assert f"models/convnext_model/{VERSION}: 2 in test" in said
    assert f"from reports         {VERSION}" in said
    assert command("normal/IM-0010") == 0
    said = capsys.readouterr().out
    assert "was already on record" in said
    assert "from the dataset     0 images" in said
    assert f"models/convnext_model/{VERSION}: 2 in test" in said


def test_the_command_fails_for_an_unknown_patient(configured: Layout) -> None:
    assert str(command("IM-9999")).startswith("error: none of the 12 patients")
    assert not configured.withdrawn.exists()


def test_the_command_fails_where_the_record_is_broken(configured: Layout) -> None:
    configured.withdrawn.write_text("patient\n")
    assert "restore it from a backup" in str(command("normal/IM-0010"))


@pytest.mark.parametrize("name", ["12.0", "table/12.0", "12"])
def test_a_patient_is_found_by_the_number_that_stands_in_the_table(name: str) -> None:
    assert forgetting._find(name, {"table/12", "table/120"}) == "table/12"
