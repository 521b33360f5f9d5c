"""Replacing what others read: they see the old file or directory, or the new one, never a half.

Also after the power has failed: what takes a name is on disk before it does.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Replace the file ``path`` by one with ``content``, on disk before it takes the name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def swap_directory(new: Path, current: Path) -> None:
    """Put the directory ``new``, all of it on disk, in the place of ``current`` if there is one.

    Both lie in one file system. A directory that is in the way is renamed first, so that for an
    instant a reader finds none; it comes back when the second rename fails.
    """
    sync(new)
    retired = current.with_name(f".{current.name}.{os.getpid()}.retired")
    if not current.exists():
        new.rename(current)
        _fsync(current.parent)
        return
    current.rename(retired)
    try:
        new.rename(current)
    except BaseException:
        retired.rename(current)
        raise
    _fsync(current.parent)
    # What says that it is ours is hidden, and goes last: a deletion that is killed can be finished.
    for path in sorted(retired.iterdir(), key=lambda path: path.name.startswith(".")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    retired.rmdir()


def sync(directory: Path) -> None:
    """Wait until every file and folder of a directory is on disk."""
    # Several at a time share one commit of the file system's journal.
    with ThreadPoolExecutor() as pool:
        list(pool.map(_fsync, (path for path in directory.rglob("*") if not path.is_symlink())))
    _fsync(directory)


def set_aside(path: Path) -> Path:
    """Rename a file or directory that is broken, so that it can be made again and looked at.

    Returns:
        Its new name, ``<name>.broken``; what had that name before is deleted.
    """
    broken = path.with_name(f"{path.name}.broken")
    if broken.is_dir() and not broken.is_symlink():
        shutil.rmtree(broken)
    else:
        broken.unlink(missing_ok=True)
    path.rename(broken)
    _fsync(path.parent)
    return broken


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
