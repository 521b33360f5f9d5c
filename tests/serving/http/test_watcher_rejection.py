"""What cannot serve leaves the model in service that serves."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from following import rejected, serving, value
from spoiling import WEIGHTS, Edit, edit_json, edit_weights, in_torch, other_reference

from cxr_serving.http.metrics import Metrics
from cxr_serving.http.watcher import Watcher
from cxr_serving.model import store

PublishBundle = Callable[..., Path]


def flip_a_byte(directory: Path) -> None:
    path = directory / WEIGHTS
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _nan(tensors: dict[str, torch.Tensor]) -> None:
    for tensor in tensors.values():
        tensor.fill_(torch.nan)


SWAPPED = {"0": "normal", "1": "bacterial_pneumonia", "2": "viral_pneumonia"}
# Done before the hashes are taken.
WRONG: dict[str, tuple[Edit, str]] = {
    "classes": (edit_json("config.json", id2label=SWAPPED), "contradicts itself"),
    "preprocessing": (edit_json("preprocessor_config.json", do_center_crop=True), "does not do"),
    "weights": (in_torch(edit_weights(_nan)), "is nan in probability"),
    "reference images": (other_reference, "does not answer its reference images"),
}
# Damaged after it was published.
DAMAGED: dict[str, tuple[Edit, str]] = {
    "flipped byte": (flip_a_byte, "does not match its sha256"),
    "missing file": (lambda directory: (directory / "config.json").unlink(), "is missing"),
    "additional file": (lambda directory: (directory / "x.py").write_text(""), "is not named"),
    "broken record": (lambda d: (d / "bundle.json").write_text("{"), "not a bundle record"),
    "no directory": (shutil.rmtree, "cannot be read"),
}


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
        assert rejected(metrics) == [bad.name]

    store.write_pointer(good.parent, good.name)
    watcher.poll()
    assert watcher.state.problem is None
    assert value(metrics, "cxr_model_stale") == 0
    assert rejected(metrics) == []
    store.write_pointer(good.parent, bad.name)
    for _ in range(2):
        watcher.poll()
        assert reason in str(watcher.state.problem)
        assert value(metrics, "cxr_model_rejections_total") == 2

    better = publish_bundle(tmp_path, 3)
    watcher.poll()
    assert serving(watcher) == better.name
    assert watcher.state.problem is None
    assert rejected(metrics) == []


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
