"""Whether a directory still holds what was written into it, by the sha256 of its files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path


def files(directory: Path) -> list[Path]:
    """All files in a directory, sorted; hidden ones are not its own.

    Clients of the hub and file managers put files of their own there.
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
    """What is wrong with a directory, or None: each recorded file there, none besides, unaltered.

    Args:
        directory: it.
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
