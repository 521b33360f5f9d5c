"""Replaces files and directories while others read them: they see the old or the new, complete.

This holds after a power failure, too: contents are on disk before they take the name.
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
    """Flush the directory ``new`` to disk and rename it to ``current``, replacing what is there.

    Both lie in one file system. An existing directory is renamed first, so that for an instant a
    reader finds none; it comes back if the second rename fails.
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
    # The hidden record that says who wrote it goes last: a killed deletion can be finished.
    for path in sorted(retired.iterdir(), key=lambda path: path.name.startswith(".")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    retired.rmdir()


def sync(directory: Path) -> None:
    """Wait until every file and folder of a directory is on disk."""
    # Concurrent calls share one commit of the file system's journal.
    with ThreadPoolExecutor() as pool:
        list(pool.map(_fsync, (path for path in directory.rglob("*") if not path.is_symlink())))
    _fsync(directory)


def set_aside(path: Path) -> Path:
    """Rename a broken file or directory, so that it can be made again and examined.

    Returns:
        Its new path, ``<name>.broken``; an earlier file or directory of that name is deleted.
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
