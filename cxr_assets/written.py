"""Directories that this program wrote: are they intact, and may they be replaced or deleted?"""

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from cxr_serving.model import hashes
from cxr_serving.model.atomic import swap_directory, write_file

RECORD_FILE = ".written.json"

logger = logging.getLogger(__name__)


class File(BaseModel):
    """One file of a record.

    Attributes:
        bytes: its size.
        mtime_ns: its modification time in nanoseconds.
        sha256: of its content, hexadecimal.
    """

    bytes: int
    mtime_ns: int
    sha256: str

    def is_at(self, path: Path) -> bool:
        """Whether ``path`` is this file; it is not read if size and time are as recorded."""
        status = path.lstat()
        if status.st_size != self.bytes or path.is_symlink():
            return False
        return status.st_mtime_ns == self.mtime_ns or hashes.of_file(path) == self.sha256


class Record(BaseModel):
    """The contents of ``.written.json``.

    Attributes:
        kind: what the directory holds, such as ``processed dataset``.
        files: all other files, by path below the directory; None while it is being written.
        identity: digest of all that shaped them; None where nothing reuses them by it.
    """

    kind: str
    files: dict[str, File] | None = None
    identity: str | None = None


def begin(directory: Path, kind: str) -> None:
    """Create a directory to write to; it may be deleted if writing is interrupted."""
    directory.mkdir(parents=True)
    (directory / RECORD_FILE).write_text(
        Record(kind=kind).model_dump_json() + "\n", encoding="utf-8"
    )


def seal(directory: Path, kind: str, identity: str | None = None) -> None:
    """Record all files of a complete directory.

    Args:
        directory: the directory.
        kind: what it holds.
        identity: digest of all that shaped it, for :func:`made_from`.

    Raises:
        OSError: the disk is full or read-only.
    """
    files = {name: _file(path) for name, path in sorted(_files(directory)) if path.is_file()}
    record = Record(kind=kind, files=files, identity=identity).model_dump_json(indent=1)
    write_file(directory / RECORD_FILE, f"{record}\n".encode())


def sealed(directory: Path) -> bool:
    """Whether a directory has a record, valid or not."""
    return (directory / RECORD_FILE).exists()


def fault(directory: Path) -> str | None:
    """What is wrong with a sealed directory, or None; added files are ignored."""
    path = directory / RECORD_FILE
    try:
        record = Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        return f"{path} cannot be read ({' '.join(str(error).split())})"
    for name, file in (record.files or {}).items():
        try:
            if not file.is_at(directory / name):
                return f"{directory / name} has changed"
        except OSError as error:
            return f"{directory / name} cannot be read: {error.strerror}"
    return None if record.files is not None else f"{directory} is not complete"


def intact(directory: Path) -> set[str]:
    """Paths below a sealed directory of the files that are as recorded; empty without a record."""
    try:
        record = Record.model_validate_json((directory / RECORD_FILE).read_bytes())
    except (OSError, ValidationError):
        return set()
    return {name for name, file in (record.files or {}).items() if _is_at(file, directory / name)}


def _is_at(file: File, path: Path) -> bool:
    try:
        return file.is_at(path)
    except OSError:
        return False


def made_from(directory: Path, kind: str, identity: str) -> bool:
    """Whether a directory is whole, all in it is ours, and ``identity`` shaped it."""
    if not directory.exists() or fault(directory) or foreign(directory, kind):
        return False
    return Record.model_validate_json((directory / RECORD_FILE).read_bytes()).identity == identity


def foreign(directory: Path, kind: str) -> str | None:
    """Why a directory may not be deleted; None if it is empty or all in it is ours.

    Args:
        directory: the directory.
        kind: that its record must have.
    """
    if not directory.is_dir():
        return f"{directory} is not a directory"
    if not any(directory.iterdir()):
        return None
    try:
        record = Record.model_validate_json((directory / RECORD_FILE).read_bytes())
    except (OSError, ValidationError):
        return f"{directory} was not written as {kind} by this program"
    if record.kind != kind:
        return f"{directory} holds something else, {record.kind}"
    if record.files is None:  # never completed, so nobody else has used it
        return None
    for name, path in _files(directory):
        if name not in record.files:
            return f"{path} was added by someone else"
        if not record.files[name].is_at(path):
            return f"{path} was changed since it was written"
    return None


def replace(new: Path, current: Path, foreign: Callable[[Path], str | None], aside: Path) -> None:
    """Replace ``current`` by ``new``; ``current`` is deleted if it is ours, else set aside.

    Args:
        new: a directory in the same file system.
        current: the path to replace; it may not exist.
        foreign: returns why a directory may not be deleted, or None.
        aside: folder in the same file system for what may not be deleted.
    """
    reason = foreign(current) if current.exists() else None
    if reason is None:
        swap_directory(new, current)
        return
    aside.mkdir(parents=True, exist_ok=True)
    kept = aside / f"{current.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    current.rename(kept)
    try:
        swap_directory(new, current)
    except BaseException:
        kept.rename(current)
        raise
    logger.warning(
        "%s: it was set aside as %s; delete that when it is no longer needed", reason, kept
    )


def revise(directory: Path, contents: Mapping[str, bytes | None]) -> None:
    """Replace files of a sealed directory by new contents, or delete those of None.

    Others see it as it was or as it becomes, complete. Files that somebody else added or changed
    are kept, and still count as theirs.

    Args:
        directory: with an intact record.
        contents: by path below the directory.

    Raises:
        OSError, ValidationError: a file or the record cannot be read or written; then nothing
            has changed.
    """
    record = Record.model_validate_json((directory / RECORD_FILE).read_bytes())
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    replaced = {directory / name for name in (RECORD_FILE, *contents)}
    try:
        begin(partial, record.kind)
        shutil.copytree(
            directory,
            partial,
            symlinks=True,
            dirs_exist_ok=True,
            copy_function=link,
            ignore=lambda folder, names: {n for n in names if Path(folder, n) in replaced},
        )
        files = dict(record.files or {})
        for name, content in contents.items():
            files.pop(name, None)
            if content is not None:
                (partial / name).write_bytes(content)
                files[name] = _file(partial / name)
        revised = Record(kind=record.kind, files=files).model_dump_json(indent=1)
        write_file(partial / RECORD_FILE, f"{revised}\n".encode())
        swap_directory(partial, directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def link(old: str | Path, new: str | Path) -> None:
    """Make ``new`` a second name of the file ``old``, or a copy where there are no such links."""
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:  # another device, or too many of them
        shutil.copy2(old, new, follow_symlinks=False)


def remove_leftovers(place: Path, foreign: Callable[[Path], str | None]) -> None:
    """Delete what interrupted writes of ``place`` left beside it, unless it is foreign."""
    name = re.compile(rf"\.{re.escape(place.name)}\.\d+\.(partial|retired)")
    for path in list(place.parent.iterdir()):
        if name.fullmatch(path.name) and foreign(path) is None:
            shutil.rmtree(path)


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    """All files at any depth, and links to directories, but not the record itself."""
    for folder, folders, files in os.walk(directory):
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        for path in (here / name for name in [*files, *links]):
            name = path.relative_to(directory).as_posix()
            if name != RECORD_FILE:
                yield name, path


def _file(path: Path) -> File:
    status = path.stat()
    return File(bytes=status.st_size, mtime_ns=status.st_mtime_ns, sha256=hashes.of_file(path))
