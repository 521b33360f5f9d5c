"""Folders as archives, cameras and operating systems leave them."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_serving.images import files


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(root: Path) -> dict[str, str | None]:
    return {found.path.relative_to(root).as_posix(): found.problem for found in files.walk([root])}


def test_everything_but_debris_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    kept = ["IM000001", "a.dicom", "b/.hidden.jpeg", "b/c/d.JPG", ".hidden/e.png", "thumbs.jpeg"]
    for name in kept:
        put(tmp_path / name)
    for debris in (
        *("._IM000001", "b/.DS_Store", "__MACOSX/b/._x", "Thumbs.db", "b/THUMBS.DB", "desktop.ini"),
        *("$RECYCLE.BIN/x.jpeg", "System Volume Information/x", ".Trashes/501/x.jpeg", "b/Icon\r"),
        *("lost+found/x", "b/@eaDir/x.jpeg", ".Trash-1000/files/x.jpeg"),
    ):
        put(tmp_path / debris)
    assert names(tmp_path) == dict.fromkeys(sorted(kept))


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    put(tmp_path / "disc" / "1")
    put(tmp_path / "top" / "2")
    put(tmp_path / "top" / "z" / "3")
    for link in ("a", "b"):
        (tmp_path / "top" / link).symlink_to(tmp_path / "disc")
    (tmp_path / "disc" / "back").symlink_to(tmp_path / "top")
    (tmp_path / "top" / "early").symlink_to(tmp_path / "top" / "z")
    (tmp_path / "top" / "file").symlink_to(tmp_path / "disc" / "1")
    found = names(tmp_path / "top")
    assert set(found.values()) == {None}
    assert {"2", "z/3", "file"} < set(found), "a folder keeps its own name, not that of a link"
    assert len(found) == 4


def test_what_cannot_be_read_is_named_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        found = names(tmp_path)
    assert found["pipe"] == found["socket"] == "it is a pipe, a socket or a device"
    assert found["gone"] == "the file cannot be read: No such file or directory"
    assert found["self"] == "the file cannot be read: Too many levels of symbolic links"


def test_a_folder_that_may_not_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "open" / "1").parent.chmod(0o755)
    put(tmp_path / "closed" / "2").parent.chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # folders above may be closed to others, too
    user = os.geteuid()
    if user == 0:  # whom no mode stops
        os.seteuid(65534)
    try:
        found = names(Path())
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(0o755)
    assert found == {
        "closed": "the folder cannot be read: Permission denied",
        "open/1": None,
    }


def test_names_are_spelled_in_utf8() -> None:
    assert files.spelled(Path("röntgen, 1\n.jpeg")) == "röntgen, 1\n.jpeg"
    assert files.spelled(Path(os.fsdecode(b"r\xf6ntgen"))) == r"r\udcf6ntgen"
    assert files.spelled(Path(r"r\udcf6ntgen")) == r"r\\udcf6ntgen"


_PIECES = st.sampled_from(
    [b"a", b"\\", b"\\udcf6", b"\xf6", "ö".encode(), b"\n", b'"', b"\xe2\x80"]
)


@given(st.lists(_PIECES, min_size=1), st.lists(_PIECES, min_size=1))
def test_no_two_names_are_spelled_alike(one: list[bytes], other: list[bytes]) -> None:
    first, second = (Path(os.fsdecode(b"".join(pieces))) for pieces in (one, other))
    files.spelled(first).encode()
    assert (files.spelled(first) == files.spelled(second)) == (first == second)
