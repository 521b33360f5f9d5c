"""A pinned version serves whatever is newer."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from following import load, serving, value
from spoiling import other_reference

from cxr_serving.http.metrics import Metrics
from cxr_serving.http.watcher import Watcher
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError

PublishBundle = Callable[..., Path]


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
    bad = publish_bundle(tmp_path, 2, finish=other_reference)
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
