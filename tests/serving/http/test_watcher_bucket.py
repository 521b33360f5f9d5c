"""A watcher whose models lie in a bucket."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import s3
from following import load, serving, value
from published import upload, upload_pointer

from cxr_serving.http.metrics import Metrics
from cxr_serving.http.watcher import Watcher
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.remote import Bucket
from cxr_serving.model.replica import Replica

PublishBundle = Callable[..., Path]
Start = Callable[..., Watcher]


pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def watch(cache: Path, metrics: Metrics, storage: s3.Storage) -> Start:
    """Starts a service's watcher anew, on what the one before has left in the cache."""

    def start(pin: str | None = None) -> Watcher:
        directory = store.asset_directory(cache, "convnext_model")
        replica = Replica(s3.URL, cache, directory)
        return Watcher(directory, "convnext_model", load, 0.05, metrics, pin, replica)

    return start


def test_each_new_version_is_brought_and_served(
    tmp_path: Path, bucket: Bucket, watch: Start, cache: Path, publish_bundle: PublishBundle
) -> None:
    watcher = watch()
    watcher.poll()
    assert "run the job retrain" in str(watcher.state.problem)
    for seed in range(5):
        directory = publish_bundle(tmp_path, seed)
        upload(bucket, directory, tmp_path)
        watcher.poll()
        assert serving(watcher) == directory.name
        assert watcher.state.problem is None
    assert len(store.versions(store.asset_directory(cache, "convnext_model"))) == 3
    # All can be listed and pinned, also those that only the bucket still has.
    listed = [one.version for one in watcher.versions()]
    assert len(listed) == 5
    watcher.pin(listed[-1])
    assert serving(watcher) == listed[-1]
    watcher.unpin()
    assert serving(watcher) == listed[0]


def test_pinned_version_serves_from_the_start(
    tmp_path: Path, bucket: Bucket, watch: Start, publish_bundle: PublishBundle
) -> None:
    older, newer = (publish_bundle(tmp_path, seed) for seed in (1, 2))
    for directory in (older, newer):
        upload(bucket, directory, tmp_path)
    watcher = watch(pin=older.name)
    watcher.poll()
    assert serving(watcher) == older.name
    watcher.unpin()
    assert serving(watcher) == newer.name


def test_damaged_version_is_rejected_once_and_the_old_one_serves_on(
    tmp_path: Path,
    bucket: Bucket,
    watch: Start,
    metrics: Metrics,
    storage: s3.Storage,
    publish_bundle: PublishBundle,
) -> None:
    good, bad = (publish_bundle(tmp_path, seed) for seed in (1, 2))
    upload(bucket, good, tmp_path)
    watcher = watch()
    watcher.poll()
    key = upload(bucket, bad, tmp_path, point=False)
    intact = storage.content(f"cxr/{key}")
    storage.damage(f"cxr/{key}")
    upload_pointer(bucket, bad, tmp_path)
    for _ in range(3):
        before = storage.network.passed["down"]
        watcher.poll()
        assert serving(watcher) == good.name
        assert "does not match its sha256" in str(watcher.state.problem)
        assert value(metrics, "cxr_model_rejections_total") == 1
    assert storage.network.passed["down"] - before < len(intact)  # not downloaded again
    with pytest.raises(BundleError, match="does not match its sha256"):
        watcher.pin(bad.name)
    storage.replace(f"cxr/{key}", intact)
    watcher.poll()
    assert serving(watcher) == bad.name
    assert watcher.state.problem is None


def test_version_whose_files_are_not_those_of_its_record_is_rejected(
    tmp_path: Path, bucket: Bucket, watch: Start, publish_bundle: PublishBundle
) -> None:
    good, bad = (publish_bundle(tmp_path, seed) for seed in (1, 2))
    upload(bucket, good, tmp_path)
    (bad / "config.json").write_text("{}")
    upload(bucket, bad, tmp_path)
    watcher = watch()
    watcher.poll()
    assert watcher.state.model is None
    assert f"{bad.name}.tar/config.json does not match" in str(watcher.state.problem)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_network_that_is_cut_leaves_the_old_model_in_service(
    tmp_path: Path,
    bucket: Bucket,
    watch: Start,
    cache: Path,
    storage: s3.Storage,
    publish_bundle: PublishBundle,
    share: float,
) -> None:
    old, new = (publish_bundle(tmp_path, seed) for seed in (1, 2))
    upload(bucket, old, tmp_path)
    watcher = watch()
    watcher.poll()
    key = upload(bucket, new, tmp_path)
    storage.network.cut(down=share * len(storage.content(f"cxr/{key}")))
    for _ in range(2):
        watcher.poll()
        assert serving(watcher) == old.name
        assert "cannot be reached" in str(watcher.state.problem)
    # So does a service that starts while the bucket is away.
    restarted = watch()
    restarted.poll()
    assert serving(restarted) == old.name
    assert "cannot be reached" in str(restarted.state.problem)
    storage.network.mend()
    watcher.poll()
    assert serving(watcher) == new.name
    assert watcher.state.problem is None
    assert [path.name for path in cache.rglob("*.partial")] == []


def test_damaged_local_copy_is_brought_again(
    tmp_path: Path, bucket: Bucket, watch: Start, cache: Path, publish_bundle: PublishBundle
) -> None:
    directory = publish_bundle(tmp_path, 1)
    upload(bucket, directory, tmp_path)
    watch().poll()
    copy = store.asset_directory(cache, "convnext_model") / directory.name
    os.truncate(copy / "model.onnx", 100)
    watcher = watch()
    watcher.poll()
    assert serving(watcher) == directory.name
    assert store.verify(copy)


def test_slow_bucket_keeps_neither_pins_nor_the_shutdown_waiting(
    tmp_path: Path,
    bucket: Bucket,
    watch: Start,
    storage: s3.Storage,
    publish_bundle: PublishBundle,
) -> None:
    first, second, third = (publish_bundle(tmp_path, seed) for seed in (1, 2, 3))
    watcher = watch()
    for directory in (first, second):
        upload(bucket, directory, tmp_path)
        watcher.poll()
    upload(bucket, third, tmp_path)
    storage.network.slow(40_000)  # many seconds for a version
    watcher.start()
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cache").rglob("archive")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    watcher.pin(first.name)
    assert serving(watcher) == first.name
    assert list((tmp_path / "cache").rglob("archive"))  # the download is still under way
    watcher.stop()
    assert list((tmp_path / "cache").rglob("archive")) == []
