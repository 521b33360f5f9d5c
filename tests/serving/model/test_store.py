import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import FINGERPRINT, record, write_files

from cxr_serving.model import store
from cxr_serving.model.atomic import set_aside
from cxr_serving.model.bundle import BundleError


def test_publish_then_read(tmp_path: Path) -> None:
    final = store.publish(tmp_path / "convnext_model", record(), write_files)
    assert final.name == "20261122T030000Z-01234567"
    assert store.latest(tmp_path / "convnext_model") == final
    verified = store.verify(final)
    assert verified.files.keys() == {"model.safetensors", "deep/notes.txt"}
    assert verified.model_copy(update={"files": {}}) == record()


def test_published_bundle_is_never_replaced(tmp_path: Path) -> None:
    store.publish(tmp_path, record(), write_files)
    with pytest.raises(BundleError, match="exists already"):
        store.publish(tmp_path, record(), write_files)


def test_failed_publish_leaves_nothing(tmp_path: Path) -> None:
    old = store.publish(tmp_path, record(0), write_files)

    def fail(directory: Path) -> None:
        write_files(directory)
        raise OSError("disk full")

    with pytest.raises(BundleError, match=r"cannot be written: disk full; nothing .* has changed"):
        store.publish(tmp_path, record(1), fail)
    assert {path.name for path in tmp_path.iterdir()} == {old.name, "latest.json"}
    assert store.latest(tmp_path) == old


# Each stage stops a publishing process at one moment, says so, and waits to be killed.
STAGES = {
    "while the files are written": "write = lambda d: (files(d), stop())",
    "before the move": "store.verify = lambda d: stop()",
    "between move and pointer": "store.write_pointer = lambda d, v: stop()",
    "while the pointer is replaced": "Path.replace = lambda self, target: stop()",
}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES.keys())
def test_kill_while_publishing_leaves_readers_the_old_version(tmp_path: Path, stage: str) -> None:
    old = store.publish(tmp_path, record(0), write_files)
    script = f"""
import sys
from pathlib import Path
from cxr_serving.model import bundle, store
def stop():
    print("stopped", flush=True)
    sys.stdin.read()
def files(d):
    (d / "model.safetensors").write_bytes(b"new weights")
write = files
{stage}
record = bundle.BundleRecord.model_validate_json(sys.argv[2])
store.publish(Path(sys.argv[1]), record, write)
"""
    publisher = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), record(1).model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert publisher.stdout is not None
    assert publisher.stdout.readline() == b"stopped\n"
    publisher.send_signal(signal.SIGKILL)
    publisher.communicate()

    assert store.latest(tmp_path) == old
    assert all(store.verify(tmp_path / version) for version in store.versions(tmp_path))
    newer = store.publish(tmp_path, record(2), write_files)
    assert store.latest(tmp_path) == newer


def damage_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(b"Weights")


def remove_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def add_file(directory: Path) -> None:
    (directory / "deep" / "surprise.py").write_text("import os")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, r"model\.safetensors does not match"),
        (remove_weights, r"model\.safetensors is missing"),
        (add_file, r"surprise\.py is not named"),
    ],
)
def test_verify_names_the_damaged_file(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    final = store.publish(tmp_path, record(), write_files)
    damage(final)
    with pytest.raises(BundleError, match=message):
        store.verify(final)


def test_without_pointer_there_is_no_latest(tmp_path: Path) -> None:
    assert store.read_pointer(tmp_path / "convnext_model") is None
    assert store.versions(tmp_path / "convnext_model") == []
    with pytest.raises(BundleError, match="materialise convnext_model first"):
        store.latest(tmp_path / "convnext_model")


def test_find_goes_by_the_whole_fingerprint(tmp_path: Path) -> None:
    store.publish(tmp_path, record(0), write_files)
    newest = store.publish(tmp_path, record(1), write_files)
    assert store.find(tmp_path, FINGERPRINT) == newest
    assert store.find(tmp_path, FINGERPRINT[:8] + "0" * 56) is None


def test_prune_keeps_the_newest_and_what_is_pointed_to(tmp_path: Path) -> None:
    names = [store.publish(tmp_path, record(n), write_files).name for n in range(5)]
    store.write_pointer(tmp_path, names[0])
    assert store.prune(tmp_path, keep=2, protect=[names[1]]) == [names[2]]
    assert store.versions(tmp_path) == [names[0], names[1], names[3], names[4]]


def test_of_what_was_set_aside_the_newest_is_kept(tmp_path: Path) -> None:
    directories = [store.publish(tmp_path, record(n), write_files) for n in range(4)]
    aside = [set_aside(directory) for directory in directories[:3]]
    (tmp_path / "of somebody else.broken").write_text("")
    assert store.versions(tmp_path) == [directories[3].name]
    assert store.prune(tmp_path, keep=1) == []
    assert {path.name for path in tmp_path.iterdir()} == {
        *(directories[3].name, aside[2].name),
        *("latest.json", "of somebody else.broken"),
    }


@pytest.mark.parametrize("content", ["", '{"version": "20261122T0300'])
def test_with_a_broken_pointer_nothing_is_deleted_and_the_advice_helps(
    content: str, tmp_path: Path
) -> None:
    names = [store.publish(tmp_path, record(n), write_files).name for n in range(3)]
    (tmp_path / "latest.json").write_text(content)
    for reading in (store.latest, lambda directory: store.prune(directory, keep=1)):
        with pytest.raises(BundleError, match=r"latest\.json is not a pointer .*: delete it, then"):
            reading(tmp_path)
    assert store.versions(tmp_path) == names
    (tmp_path / "latest.json").unlink()
    made = store.publish(tmp_path, record(3), write_files)
    assert store.latest(tmp_path) == made


def test_what_is_deleted_is_never_seen_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [store.publish(tmp_path, record(n), write_files).name for n in range(3)]

    def killed(path: Path) -> None:
        (path / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.prune(tmp_path, keep=1)
    assert store.versions(tmp_path) == [names[2]]
    assert store.prune(tmp_path, keep=1) == []
    assert {path.name for path in tmp_path.iterdir()} == {names[2], "latest.json"}


def test_what_a_killed_publishing_left_behind_is_cleaned_away_in_time(tmp_path: Path) -> None:
    kept = store.publish(tmp_path, record(), write_files)
    old, new = (tmp_path / f".{name}.1.partial" for name in ("old", "new"))
    for path in (old, new):
        path.mkdir()
    two_days_ago = time.time() - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    store.prune(tmp_path, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == {kept.name, "latest.json", new.name}


def test_a_pointer_that_cannot_be_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.publish(tmp_path, record(0), write_files)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(BundleError, match=r"latest\.json.* cannot be written: No space left"):
            store.publish(tmp_path, record(1), write_files)
    assert store.latest(tmp_path) == old
    assert not list(tmp_path.glob(".latest*"))


def test_whoever_may_list_a_bundle_may_read_it(
    tmp_path: Path, publish_bundle: Callable[..., Path]
) -> None:
    directory = publish_bundle(tmp_path, 1)
    readable = directory.stat().st_mode & 0o666
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {readable}
