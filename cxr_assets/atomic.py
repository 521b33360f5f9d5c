"""Replacing what others read: they see the old file or directory, or the new one, never a half."""

import os
import shutil
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


def swap_directory(new: Path, current: Path) -> None:
    """Put the directory ``new`` in the place of ``current``, which may be absent.

    Both lie in one file system. A directory that is in the way is renamed first, so that for an
    instant a reader finds none; it comes back when the second rename fails.
    """
    retired = current.with_name(f".{current.name}.{os.getpid()}.retired")
    if not current.exists():
        new.rename(current)
        return
    current.rename(retired)
    try:
        new.rename(current)
    except BaseException:
        retired.rename(current)
        raise
    shutil.rmtree(retired)
