"""Seals: whether a folder of images that was downloaded or made is still as it was then."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from cxr_serving import hashes
from cxr_serving.atomic import sync, write_file

SEAL_FILE = ".seal.json"


class File(BaseModel):
    """One sealed file.

    Attributes:
        bytes: its size.
        mtime_ns: when it was last changed, in nanoseconds.
        sha256: of its content, hexadecimal.
    """

    bytes: int
    mtime_ns: int
    sha256: str


class Seal(BaseModel):
    """The contents of ``.seal.json``: every file of the folder, by path inside it."""

    files: dict[str, File]


def seal(folder: Path) -> None:
    """Wait until a folder is on disk and record what it holds, in ``.seal.json`` in it.

    Raises:
        OSError: the disk is full or read-only.
    """
    sync(folder)
    files = {
        path.relative_to(folder).as_posix(): File(
            bytes=path.stat().st_size,
            mtime_ns=path.stat().st_mtime_ns,
            sha256=hashes.of_file(path),
        )
        for path in hashes.files(folder)
    }
    write_file(folder / SEAL_FILE, Seal(files=files).model_dump_json().encode())


def sealed(folder: Path) -> bool:
    """Whether a folder has a seal, whole or broken."""
    return (folder / SEAL_FILE).exists()


def fault(folder: Path) -> str | None:
    """What has happened to a sealed folder, or None; files that were added do not count.

    Files whose size and time are as they were are not read again, as there may be gigabytes.
    """
    path = folder / SEAL_FILE
    try:
        files = Seal.model_validate_json(path.read_bytes()).files
    except (OSError, ValidationError) as error:
        return f"{path} cannot be read ({' '.join(str(error).split())})"
    for name, file in files.items():
        try:
            status = (folder / name).stat()
            if status.st_size == file.bytes and status.st_mtime_ns == file.mtime_ns:
                continue
            if status.st_size == file.bytes and hashes.of_file(folder / name) == file.sha256:
                continue
        except OSError as error:
            return f"{folder / name} cannot be read: {error.strerror}"
        return f"{folder / name} has changed"
    return None
