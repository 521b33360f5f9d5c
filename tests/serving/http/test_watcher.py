import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from safetensors.torch import load_file, save_file

from cxr_serving.http.metrics import Metrics
from cxr_serving.http.watcher import Watcher
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.predictor import Predictor

PublishBundle = Callable[..., Path]
Damage = Callable[[Path], object]
CONFIRMED = "cxr_model_confirmed_timestamp_seconds"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def load(directory: Path) -> Predictor:
    return Predictor(directory, threads=1)


@pytest.fixture
def watcher(tmp_path: Path, metrics: Metrics) -> Watcher:
    directory = tmp_path / "models" / "convnext_model"
    return Watcher(directory, "convnext_model", load, 0.05, metrics)


def value(metrics: Metrics, name: str) -> float:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name == name:
                return sample.value
    raise LookupError(name)


def serving(watcher: Watcher) -> str | None:
    model = watcher.state.model
    return None if model is None else model.record.version


def flip_a_byte(directory: Path) -> None:
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def rename_classes(directory: Path) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["id2label"] = {"0": "normal", "1": "bacterial_pneumonia", "2": "viral_pneumonia"}
    path.write_text(json.dumps(config))


def unknown_preprocessing(directory: Path) -> None:
    path = directory / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_center_crop": True}))


def nan_weights(directory: Path) -> None:
    (directory / "model.onnx").unlink()  # which would be unharmed
    path = directory / "model.safetensors"
    tensors = {name: torch.full_like(t, torch.nan) for name, t in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def other_answers(directory: Path) -> None:
    path = directory / "reference.safetensors"
    tensors = load_file(path)
    tensors["probabilities"] = tensors["probabilities"].roll(1, dims=1)
    save_file(tensors, path)


# Damage done before the hashes are taken.
WRONG: dict[str, tuple[Damage, str]] = {
    "classes": (rename_classes, "contradicts itself"),
    "preprocessing": (unknown_preprocessing, "does not do"),
    "weights": (nan_weights, "is nan in probability"),
    "reference images": (other_answers, "does not answer its reference images"),
}
# Damaged after it was published.
DAMAGED: dict[str, tuple[Damage, str]] = {
    "flipped byte": (flip_a_byte, "does not match its sha256"),
    "missing file": (lambda directory: (directory / "config.json").unlink(), "is missing"),
    "additional file": (lambda directory: (directory / "x.py").write_text(""), "is not named"),
    "broken record": (lambda d: (d / "bundle.json").write_text("{"), "not a bundle record"),
    "no directory": (shutil.rmtree, "cannot be read"),
}


def test_nothing_published_yet(watcher: Watcher, metrics: Metrics) -> None:
    watcher.poll()
    assert watcher.state.model is None
    assert "run the job retrain" in str(watcher.state.problem)
    assert value(metrics, "cxr_model_ready") == 0


def test_each_new_version_is_swapped_in(
    tmp_path: Path, watcher: Watcher, metrics: Metrics, publish_bundle: PublishBundle
) -> None:
    for seed in (1, 2):
        version = publish_bundle(tmp_path, seed).name
        watcher.poll()
        assert serving(watcher) == version
        assert watcher.state.problem is None
        assert value(metrics, "cxr_model_loads_total") == seed
    first = watcher.state.model
    watcher.poll()
    assert watcher.state.model is first
    assert value(metrics, "cxr_model_ready") == 1
    assert f'version="{version}"' in metrics.render().decode()


def test_pointer_set_back_serves_the_older_version(
    tmp_path: Path, watcher: Watcher, publish_bundle: PublishBundle
) -> None:
    older = publish_bundle(tmp_path, 1)
    newer = publish_bundle(tmp_path, 2)
    watcher.poll()
    assert serving(watcher) == newer.name
    store.write_pointer(older.parent, older.name)
    watcher.poll()
    assert serving(watcher) == older.name


@pytest.mark.parametrize("case", [*WRONG, *DAMAGED])
def test_bad_bundle_keeps_the_old_model_in_service(
    tmp_path: Path, watcher: Watcher, metrics: Metrics, publish_bundle: PublishBundle, case: str
) -> None:
    good = publish_bundle(tmp_path, 1)
    watcher.poll()
    if case in WRONG:
        spoil, reason = WRONG[case]
        bad = publish_bundle(tmp_path, 2, finish=spoil)
    else:
        damage, reason = DAMAGED[case]
        bad = publish_bundle(tmp_path, 2)
        damage(bad)
    for _ in range(3):
        watcher.poll()
        assert serving(watcher) == good.name
        assert reason in str(watcher.state.problem)
        assert bad.name in str(watcher.state.problem)
        assert value(metrics, "cxr_model_stale") == 1
        assert value(metrics, "cxr_model_rejections_total") == 1

    store.write_pointer(good.parent, good.name)
    watcher.poll()
    assert watcher.state.problem is None
    assert value(metrics, "cxr_model_stale") == 0
    store.write_pointer(good.parent, bad.name)
    for _ in range(2):
        watcher.poll()
        assert reason in str(watcher.state.problem)
        assert value(metrics, "cxr_model_rejections_total") == 2

    better = publish_bundle(tmp_path, 3)
    watcher.poll()
    assert serving(watcher) == better.name
    assert watcher.state.problem is None


def test_repaired_bundle_is_tried_again(
    tmp_path: Path, watcher: Watcher, publish_bundle: PublishBundle
) -> None:
    directory = publish_bundle(tmp_path, 1)
    whole = (directory / "model.safetensors").read_bytes()
    flip_a_byte(directory)
    watcher.poll()
    assert watcher.state.model is None
    assert "sha256" in str(watcher.state.problem)
    (directory / "model.safetensors").write_bytes(whole)
    watcher.poll()
    assert serving(watcher) == directory.name


def test_bundle_moved_under_another_version_is_rejected(
    tmp_path: Path, watcher: Watcher, publish_bundle: PublishBundle
) -> None:
    directory = publish_bundle(tmp_path, 1)
    other = directory.with_name("20200101T000000Z-00000000")
    shutil.copytree(directory, other)
    store.write_pointer(directory.parent, other.name)
    watcher.poll()
    assert watcher.state.model is None
    assert f"holds convnext_model {directory.name}" in str(watcher.state.problem)


def test_run_that_reuses_the_model_confirms_it_and_nothing_is_loaded_again(
    tmp_path: Path, watcher: Watcher, metrics: Metrics, publish_bundle: PublishBundle
) -> None:
    made = datetime.now(UTC) - timedelta(days=12)
    directory = publish_bundle(tmp_path, 1, created_at=made)
    pinned = Watcher(directory.parent, "convnext_model", load, 0.05, metrics, pin=directory.name)
    pinned.poll()
    assert value(metrics, CONFIRMED) == pytest.approx(made.timestamp())
    watcher.poll()
    model = watcher.state.model
    assert model is not None
    assert made.timestamp() < value(metrics, CONFIRMED)

    before = time.time()
    store.write_pointer(directory.parent, directory.name)
    watcher.poll()
    assert before <= value(metrics, CONFIRMED) <= time.time()
    assert watcher.state.model is model
    assert value(metrics, "cxr_model_loads_total") == 2

    # What is confirmed from now on is another model, and not the one that still serves.
    confirmed = value(metrics, CONFIRMED)
    bad = publish_bundle(tmp_path, 2, finish=other_answers)
    for rejections in (1, 2):
        for _ in range(2):  # tried once for each time that the pointer is written
            watcher.poll()
            assert watcher.state.model is model
            assert value(metrics, CONFIRMED) == confirmed
            assert value(metrics, "cxr_model_rejections_total") == rejections
        store.write_pointer(directory.parent, bad.name)


def test_pinned_version_serves_despite_newer_ones(
    tmp_path: Path, watcher: Watcher, metrics: Metrics, publish_bundle: PublishBundle
) -> None:
    older = publish_bundle(tmp_path, 1)
    newer = publish_bundle(tmp_path, 2)
    watcher.poll()
    watcher.pin(older.name)
    assert (serving(watcher), watcher.state.pinned) == (older.name, older.name)
    assert value(metrics, "cxr_model_pinned") == 1
    newest = publish_bundle(tmp_path, 3)
    watcher.poll()
    assert serving(watcher) == older.name
    assert watcher.state.problem is None
    watcher.unpin()
    assert (serving(watcher), watcher.state.pinned) == (newest.name, None)
    assert value(metrics, "cxr_model_pinned") == 0
    assert [found.version for found in watcher.versions()] == [
        newest.name,
        newer.name,
        older.name,
    ]


def test_rollback_to_the_previous_model_works_without_its_files(
    tmp_path: Path, watcher: Watcher, publish_bundle: PublishBundle
) -> None:
    older = publish_bundle(tmp_path, 1)
    watcher.poll()
    model = watcher.state.model
    publish_bundle(tmp_path, 2)
    watcher.poll()
    shutil.rmtree(older)
    watcher.pin(older.name)
    assert watcher.state.model is model


def test_what_cannot_serve_cannot_be_pinned(
    tmp_path: Path, watcher: Watcher, metrics: Metrics, publish_bundle: PublishBundle
) -> None:
    good = publish_bundle(tmp_path, 1)
    bad = publish_bundle(tmp_path, 2, finish=other_answers)
    watcher.poll()
    store.write_pointer(good.parent, good.name)
    watcher.poll()
    for version, reason in ((bad.name, "reference images"), ("20200101T000000Z-00000000", "read")):
        with pytest.raises(BundleError, match=reason):
            watcher.pin(version)
        assert (serving(watcher), watcher.state.pinned) == (good.name, None)
    assert value(metrics, "cxr_model_pinned") == 0
    reasons = {found.version: found.reason for found in watcher.versions()}
    assert "reference images" in str(reasons[bad.name])
    assert reasons[good.name] is None


def test_first_version_can_be_pinned(
    tmp_path: Path, metrics: Metrics, publish_bundle: PublishBundle
) -> None:
    older = publish_bundle(tmp_path, 1)
    publish_bundle(tmp_path, 2)
    watcher = Watcher(older.parent, "convnext_model", load, 0.05, metrics, pin=older.name)
    watcher.poll()
    assert serving(watcher) == older.name
    assert value(metrics, "cxr_model_pinned") == 1


def test_lost_or_unreadable_pointer_changes_nothing(
    tmp_path: Path, watcher: Watcher, publish_bundle: PublishBundle
) -> None:
    directory = publish_bundle(tmp_path, 1)
    pointer = directory.parent / "latest.json"
    contents = pointer.read_text()
    watcher.poll()
    for spoil, reason in (
        (lambda: pointer.write_text("{"), "is not a pointer"),
        (lambda: pointer.write_text('{"version": "../../x"}'), "is not a pointer"),
        (pointer.unlink, "does not exist"),
        (pointer.mkdir, "cannot be read"),
    ):
        spoil()
        watcher.poll()
        assert serving(watcher) == directory.name
        assert reason in str(watcher.state.problem)
    pointer.rmdir()
    pointer.write_text(contents)
    watcher.poll()
    assert watcher.state.problem is None


def test_model_taken_before_a_swap_still_answers(
    tmp_path: Path, watcher: Watcher, publish_bundle: PublishBundle
) -> None:
    old = publish_bundle(tmp_path, 1)
    watcher.poll()
    taken = watcher.state.model
    assert taken is not None
    images = np.zeros((1, 64, 64), np.uint8)
    before = taken.predict(images)
    publish_bundle(tmp_path, 2)
    watcher.poll()
    shutil.rmtree(old)
    np.testing.assert_array_equal(taken.predict(images), before)
    assert watcher.state.model is not None
    assert not np.array_equal(watcher.state.model.predict(images), before)


def test_thread_follows_and_stops(
    tmp_path: Path, watcher: Watcher, publish_bundle: PublishBundle
) -> None:
    watcher.start()
    try:
        version = publish_bundle(tmp_path, 1).name
        deadline = time.monotonic() + 30
        while serving(watcher) != version:
            assert time.monotonic() < deadline, watcher.state
            time.sleep(0.01)
    finally:
        watcher.stop()
    publish_bundle(tmp_path, 2)
    assert serving(watcher) == version
