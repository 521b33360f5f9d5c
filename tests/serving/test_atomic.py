from pathlib import Path

import pytest

from cxr_serving.atomic import swap_directory, write_file


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
