"""Checks by sha256 that a directory still holds the files that were written into it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path


def files(directory: Path) -> list[Path]:
    """All files in a directory, sorted, without hidden ones.

    File managers and clients of the hub leave hidden files and folders of their own.
    """
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )


def of(directory: Path, record: str) -> dict[str, str]:
    """sha256, hexadecimal, of every file but ``record``, by its path inside the directory."""
    return {
        path.relative_to(directory).as_posix(): of_file(path)
        for path in files(directory)
        if path != directory / record
    }


def of_file(path: Path) -> str:
    """sha256, hexadecimal, of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fault(directory: Path, record: str, recorded: Mapping[str, str]) -> str | None:
    """What is wrong with a directory: a recorded file is missing or altered, or another is there.

    None where it is intact.

    Args:
        directory: to check.
        record: name of the file in it that holds the hashes.
        recorded: the hashes, as :func:`of` gave them.
    """
    actual = of(directory, record)
    for name in sorted(recorded.keys() | actual.keys()):
        if name not in actual:
            return f"{directory / name} is missing"
        if name not in recorded:
            return f"{directory / name} is not named in {record}"
        if recorded[name] != actual[name]:
            return f"{directory / name} does not match its sha256 in {record}"
    return None
