from functools import partial
from pathlib import Path

import pytest

from cxr_assets import written

KIND = "report"
foreign = partial(written.foreign, kind=KIND)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    return write(tmp_path / "place", "old")


def write(directory: Path, text: str, kind: str = KIND) -> Path:
    written.begin(directory, kind)
    (directory / "figures").mkdir()
    for name in ("page.html", "figures/roc.csv"):
        (directory / name).write_text(text)
    written.seal(directory, kind)
    return directory


def add(directory: Path) -> None:
    (directory / "figures" / "notes.txt").write_text("mine")


def link(directory: Path) -> None:
    (directory / "more").symlink_to(directory.parent)


def change(directory: Path) -> None:
    (directory / "page.html").write_text("mine")


def lose_the_record(directory: Path) -> None:
    (directory / written.RECORD_FILE).unlink()


def write_another_kind(directory: Path) -> None:
    written.seal(directory, "release")


def test_what_is_ours_is_replaced(sealed: Path, tmp_path: Path) -> None:
    (sealed / "page.html").unlink()  # by a deletion that was killed
    assert foreign(sealed) is None
    written.replace(write(tmp_path / "new", "new"), sealed, foreign, tmp_path / "aside")
    assert (sealed / "page.html").read_text() == "new"
    assert list(tmp_path.iterdir()) == [sealed]


@pytest.mark.parametrize("meddle", [add, link, change, lose_the_record, write_another_kind])
def test_what_is_not_known_to_be_ours_is_set_aside(
    sealed: Path, tmp_path: Path, meddle, caplog: pytest.LogCaptureFixture
) -> None:
    meddle(sealed)
    before = {path.name for path in sealed.iterdir()}
    assert foreign(sealed) is not None
    written.replace(write(tmp_path / "new", "new"), sealed, foreign, tmp_path / "aside")
    assert (sealed / "page.html").read_text() == "new"
    [aside] = (tmp_path / "aside").iterdir()
    assert {path.name for path in aside.iterdir()} == before
    assert str(aside) in caplog.text


def test_leftovers_are_removed_and_their_likes_are_not(sealed: Path, tmp_path: Path) -> None:
    written.begin(tmp_path / ".place.17.partial", KIND)
    write(tmp_path / ".place.18.retired", "old")
    (tmp_path / ".place.19.partial").mkdir()
    (tmp_path / ".place.19.partial" / "notes.txt").write_text("mine")
    write(tmp_path / ".place.old.partial", "mine")
    written.remove_leftovers(sealed, foreign)
    kept = {"place", ".place.19.partial", ".place.old.partial"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_intact_files_are_those_that_nobody_changed_or_deleted(sealed):
    assert written.intact(sealed) == {"page.html", "figures/roc.csv"}
    add(sealed)
    change(sealed)
    assert written.intact(sealed) == {"figures/roc.csv"}
    (sealed / "figures" / "roc.csv").unlink()
    assert written.intact(sealed) == set()
    lose_the_record(sealed)
    assert written.intact(sealed) == set()


def test_files_are_revised_and_the_record_stays_valid(sealed: Path, tmp_path: Path) -> None:
    (sealed / "empty").mkdir()
    written.revise(sealed, {"page.html": b"new", "figures/roc.csv": None})
    assert (sealed / "page.html").read_text() == "new"
    assert not (sealed / "figures" / "roc.csv").exists()
    assert (sealed / "empty").is_dir()
    assert written.fault(sealed) is None
    assert foreign(sealed) is None
    assert list(tmp_path.iterdir()) == [sealed]


@pytest.mark.parametrize("meddle", [add, link])
def test_what_others_added_survives_a_revision_and_stays_theirs(sealed: Path, meddle) -> None:
    meddle(sealed)
    before = foreign(sealed)
    written.revise(sealed, {"page.html": b"new"})
    assert foreign(sealed) == before
    assert before is not None


def test_a_revision_that_fails_changes_nothing(
    sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(written, "swap_directory", full)
    with pytest.raises(OSError, match="No space left"):
        written.revise(sealed, {"page.html": b"new"})
    assert (sealed / "page.html").read_text() == "old"
    assert list(tmp_path.iterdir()) == [sealed]


def test_a_link_is_a_copy_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*args: object, **more: object) -> None:
        raise OSError(1, "Operation not permitted")

    (tmp_path / "a").write_text("text")
    written.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")
    monkeypatch.setattr(written.os, "link", none)
    written.link(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "text"
    assert not (tmp_path / "c").samefile(tmp_path / "a")
