"""Finds the files in folders of images, and says which cannot be read."""

import os
import stat
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Files and folders that operating systems and network drives create; none is an image.
_DEBRIS = frozenset(
    name.lower()
    for name in (
        # macOS
        *("__MACOSX", ".DS_Store", ".AppleDouble", ".AppleDB", ".AppleDesktop", ".LSOverride"),
        *(".Trashes", ".Spotlight-V100", ".fseventsd", ".TemporaryItems", ".VolumeIcon.icns"),
        *(".DocumentRevisions-V100", ".apdisk", ".localized", "Icon\r"),
        # Windows
        *("Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("$RECYCLE.BIN", "RECYCLER", "System Volume Information"),
        # Linux, Synology, QNAP
        *("lost+found", ".directory", "@eaDir", "#recycle", "@Recycle", ".@__thumb"),
    )
)
_DEBRIS_PREFIXES = ("._", ".Trash-")


@dataclass(frozen=True, order=True)
class Found:
    """A file, or a folder that cannot be listed.

    Attributes:
        path: where it lies, below the folder that was walked.
        problem: why it cannot be read; None for a file that can be opened.
    """

    path: Path
    problem: str | None = None


def walk(tops: Iterable[Path]) -> list[Found]:
    """All files in folders and below, sorted; files of operating systems are skipped.

    Links are followed last, and each folder is listed once, so that loops end. Pipes, sockets and
    devices are listed with their problem and never opened.
    """
    found: list[Found] = []
    seen: set[tuple[int, int]] = set()
    folders, links = deque(tops), deque[Path]()
    while folders or links:
        folder = (folders or links).popleft()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                inside = [entry for entry in entries if not _is_debris(entry.name)]
        except OSError as error:
            found.append(Found(folder, f"the folder cannot be read: {error.strerror}"))
            continue
        for entry in inside:
            path = folder / entry.name
            mode = _mode(path)
            if isinstance(mode, int) and stat.S_ISDIR(mode):
                (links if entry.is_symlink() else folders).append(path)
            else:
                found.append(_file(path, mode))
    return sorted(found)


def look(path: Path) -> Found:
    """A path that is not a folder, and whether it can be read."""
    return _file(path, _mode(path))


def spelled(path: Path) -> str:
    """A path as text in UTF-8 that no other path has, in any locale.

    Bytes of a name that are not UTF-8 become ``\\udcXX``; then,
    and where a name has such letters in it, a backslash is doubled.
    """
    text = os.fsencode(path).decode("utf-8", "surrogateescape")
    if is_utf8(text) and r"\udc" not in text:
        return text
    return text.replace("\\", r"\\").encode("utf-8", "backslashreplace").decode()


def is_utf8(text: str) -> bool:
    """Whether no byte of a file name stands in ``text`` that is not UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _mode(path: Path) -> int | str:
    try:
        return path.stat().st_mode
    except OSError as error:
        return f"the file cannot be read: {error.strerror}"


def _file(path: Path, mode: int | str) -> Found:
    if isinstance(mode, str):
        return Found(path, mode)
    return Found(path, None if stat.S_ISREG(mode) else "it is a pipe, a socket or a device")


def _is_debris(name: str) -> bool:
    return name.lower() in _DEBRIS or name.startswith(_DEBRIS_PREFIXES)
