import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_serving.model import store
from cxr_serving.model.atomic import set_aside, swap_directory, write_file


def directory(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"two"):
        write_file(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


class Disk:
    """Notes what is on disk when something takes its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: set[int] = set()
        self.missing: list[Path] = []
        self.renamed: list[Path] = []
        fsync = os.fsync

        def noted_fsync(descriptor: int) -> None:
            fsync(descriptor)
            self.synced.add(os.fstat(descriptor).st_ino)

        monkeypatch.setattr(os, "fsync", noted_fsync)
        for name in ("rename", "replace"):
            monkeypatch.setattr(Path, name, self._noted(getattr(Path, name)))

    def _noted(self, rename: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def noted(path: Path, target: Path) -> Path:
            if not target.name.startswith("."):
                self.renamed.append(target)
                inside = [path, *path.rglob("*")]
                self.missing += [p for p in inside if p.stat().st_ino not in self.synced]
                self.synced.discard(target.parent.stat().st_ino)
            return rename(path, target)

        return noted


def test_what_takes_a_name_is_on_disk_before_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publish_bundle: Callable[..., Path]
) -> None:
    new = directory(tmp_path / "new", "new")
    directory(new / "deep", "new")
    current = directory(tmp_path / "current", "old")
    disk = Disk(monkeypatch)
    write_file(tmp_path / "file", b"content")
    assert tmp_path.stat().st_ino in disk.synced
    swap_directory(new, current)
    assert tmp_path.stat().st_ino in disk.synced
    (tmp_path / "models").mkdir()
    published = publish_bundle(tmp_path / "models", 1)
    store.write_pointer(published.parent, published.name)
    assert published.parent.stat().st_ino in disk.synced
    assert {current, published, published.parent / "latest.json"} <= set(disk.renamed)
    assert disk.missing == []


def test_what_is_broken_is_set_aside_and_one_of_each_name_is_kept(tmp_path: Path) -> None:
    for content in ("first", "second"):
        file = tmp_path / "file"
        file.write_text(content)
        folder = directory(tmp_path / "folder", content)
        for path in (file, folder):
            aside = set_aside(path)
            assert aside == path.with_name(f"{path.name}.broken")
            assert not path.exists()
    assert (tmp_path / "file.broken").read_text() == "second"
    assert (tmp_path / "folder.broken" / "file").read_text() == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.broken", "folder.broken"]


@pytest.mark.parametrize("existing", [True, False])
def test_a_directory_takes_the_place(tmp_path: Path, existing: bool) -> None:
    current = tmp_path / "current"
    if existing:
        directory(current, "old")
    swap_directory(directory(tmp_path / "new", "new"), current)
    assert (current / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [current]


def test_the_old_directory_comes_back_when_the_new_one_cannot_be_moved(tmp_path: Path) -> None:
    current = directory(tmp_path / "current", "old")
    with pytest.raises(FileNotFoundError):
        swap_directory(tmp_path / "missing", current)
    assert (current / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [current]
