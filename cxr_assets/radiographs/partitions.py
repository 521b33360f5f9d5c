"""Reads a table file by file: one, or the partitions in a folder."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cxr_assets.progress import Progress
from cxr_assets.radiographs import hive, table
from cxr_assets.radiographs.table import FIRST, TableError, Wanted

_PARQUET_END = b"PAR1"
_LINE_ENDS = (b"\n", b"\r", b"\n\0", b"\r\0")


@dataclass(frozen=True)
class Partition:
    """The rows of one file.

    Attributes:
        name: path of the file below the folder; None where the table is one file.
        first: number of its first row where those of all files count, as in one spreadsheet.
        rows: see :func:`table.read`; numbered as in this file.
    """

    name: str | None
    first: int
    rows: pd.DataFrame


def read(place: Path, wanted: Wanted, progress: Progress) -> Iterator[Partition]:
    """The wanted columns of a table, one file after the other, in the order of their paths.

    A folder ``name=value`` is a column of the files in it; a column of that name in a file is not
    read.

    Args:
        place: a CSV or Parquet file, or a folder, see :func:`hive.files`.
        wanted: the columns.
        progress: called with a line about a column that may be meant, but is not read.

    Raises:
        TableError: see :func:`table.read`; the folder is empty, or one of its files cannot be read,
            is cut off, or has other columns than the first.
    """
    if not place.is_dir():
        yield Partition(None, FIRST, table.read(place, wanted, progress))
        return
    first, before, columns = FIRST, "", frozenset[str]()
    for file in _files(place):
        name = file.relative_to(place).as_posix()
        try:
            rows = _part(file, hive.columns(file, place), wanted, progress)
            if before and columns != set(rows):
                raise TableError(_differs(wanted, name, frozenset(rows), before, columns))
        except TableError as error:
            raise TableError(
                f"{error}. All files in {place} are parts of one table, but for those whose names "
                f"start with {' or '.join(hive.ASIDE)}"
            ) from error
        if not before:
            # The settings name columns that there are: others have to be as these.
            before, columns = name, frozenset(rows)
            wanted, progress = replace(wanted, setting=None), _silent
        if not rows.empty:  # a program writes such a file where it has nothing to write
            yield Partition(name, first, rows)
            first += int(rows.index[-1]) + 1 - FIRST
    if first == FIRST:
        raise TableError(f"the files in {place} have no rows below the names of their columns")


def _files(place: Path) -> list[Path]:
    try:
        return hive.files(place)
    except OSError as error:
        raise TableError(f"{error.filename} cannot be read as a table: {error.strerror}") from error


def _part(file: Path, said: dict[str, str], wanted: Wanted, progress: Progress) -> pd.DataFrame:
    outside = {key: said[name] for key, name in wanted.columns.items() if name in said}
    inside = {key: name for key, name in wanted.columns.items() if key not in outside}
    needed = [key for key in wanted.needed if key in inside]
    rows = table.part(file, replace(wanted, columns=inside, needed=needed), progress)
    _require_end(file)
    for key, value in outside.items():
        rows[key] = table.said(key, pd.Series(value, index=rows.index, dtype=object))
    return rows


def _require_end(file: Path) -> None:
    """Programs end the last line, too; a file that is being copied hardly ever ends with a line."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - len(_PARQUET_END)))
        end = stream.read()
    if end != _PARQUET_END and not end.endswith(_LINE_ENDS):
        raise TableError(
            f"{file} ends within a line, as if it were cut off: copy it again or, if it is whole, "
            "end its last line"
        )


def _differs(
    wanted: Wanted, one: str, here: frozenset[str], other: str, there: frozenset[str]
) -> str:
    key = min(here ^ there)
    having, lacking = (one, other) if key in here else (other, one)
    return (
        f"{having} has a column {wanted.columns[key]!r}, but {lacking} has none: write all files "
        "with the same columns; values may be empty"
    )


def _silent(line: str) -> None:
    """What the first file lacks, the others lack as well."""
