import logging
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from following import load, serving, value
from spoiling import other_reference

from cxr_serving.http.metrics import Metrics
from cxr_serving.http.watcher import Watcher
from cxr_serving.model import store

PublishBundle = Callable[..., Path]
CONFIRMED = "cxr_model_confirmed_timestamp_seconds"


def test_nothing_published_yet(watcher: Watcher, metrics: Metrics) -> None:
    watcher.poll()
    assert watcher.state.model is None
    assert "run the job retrain" in str(watcher.state.problem)
    assert value(metrics, "cxr_model_ready") == 0


def test_each_new_version_is_swapped_in(
    tmp_path: Path,
    watcher: Watcher,
    metrics: Metrics,
    publish_bundle: PublishBundle,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "cxr_serving")
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
    # Its log says when loading began, too.
    said = [record.msg for record in caplog.records if vars(record).get("version") == version]
    assert said == ["loading", "serving"]


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
    bad = publish_bundle(tmp_path, 2, finish=other_reference)
    for rejections in (1, 2):
        for _ in range(2):  # tried once for each time that the pointer is written
            watcher.poll()
            assert watcher.state.model is model
            assert value(metrics, CONFIRMED) == confirmed
            assert value(metrics, "cxr_model_rejections_total") == rejections
        store.write_pointer(directory.parent, bad.name)


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
