"""Reads a table of images: CSV or Parquet, whatever a spreadsheet or a database made of it."""

import codecs
import csv
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_assets.progress import Progress
from cxr_assets.radiographs.inventory import RawDataError

_PARQUET = b"PAR1"
# Files that are no tables, by their first bytes: what they are, and what to do.
_OTHERS = {
    b"PK\x03\x04": "an Excel workbook or another ZIP archive: save it as 'CSV UTF-8'",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as 'CSV UTF-8'",
    b"\x1f\x8b": "compressed by gzip: unpack it",
}
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DELIMITERS = ",;\t"
# How R, SQL and pandas write that there is no value; a path or a label may be such a word.
_NOTHING = ("na", "n/a", "#n/a", "nan", "null", "none", "<na>")
_VERBATIM = ("path", "label")
# Number of the first row in a spreadsheet: the one before has the names of the columns.
FIRST = 2


class TableError(RawDataError):
    """A table cannot be read; the message says where, why and what to do."""


@dataclass(frozen=True)
class Wanted:
    """The columns that are read.

    Attributes:
        columns: name of a column in the file, by the name that it gets here.
        needed: names here of columns that must exist. Another one is left out where there is none,
            unless a setting gives it another name in the file.
        setting: what names a column of the file, with ``{}`` for its name here; None where
            columns must have the names that they get here.
    """

    columns: Mapping[str, str]
    needed: Sequence[str]
    setting: str | None

    def choose(self, path: Path, names: Sequence[str], progress: Progress) -> dict[int, str]:
        """Position of each column in the file, and its name here.

        Raises:
            TableError: one is missing, or there twice.
        """
        chosen: dict[int, str] = {}
        for key, name in self.columns.items():
            if (count := names.count(name)) > 1:
                raise TableError(f"{path} has {count} columns {name!r}: rename all but one")
            if count:
                chosen[names.index(name)] = key
            elif key in self.needed or name != key:
                raise TableError(f"{path} has no column {name!r}{self._nearest(key, names)}")
            elif twin := next((other for other in names if other.casefold() == name), None):
                progress(f"{path}: the column {twin!r} is not used: {self._remedy(key, twin)}")
        return chosen

    def _nearest(self, key: str, names: Sequence[str]) -> str:
        taken = {name for other, name in self.columns.items() if other != key}
        folded = {name.casefold(): name for name in names if name and name not in taken}
        near = difflib.get_close_matches(self.columns[key].casefold(), folded, n=1, cutoff=0.4)
        hint = f"; the nearest is {folded[near[0]]!r}" if near else ""
        there = ", ".join(repr(name) for name in names if name) or "none"
        remedy = self._remedy(key, folded[near[0]] if near else "NAME")
        return f"{hint}. Its columns are {there}: {remedy}"

    def _remedy(self, key: str, name: str) -> str:
        if self.setting is None:
            return f"rename the right one to {self.columns[key]!r}"
        return f"set {self.setting.format(key)}={name!r}"


def read(path: Path, wanted: Wanted, progress: Progress) -> pd.DataFrame:
    """The wanted columns of a table, as text.

    A CSV file is UTF-8, or UTF-16 with a byte order mark; comma, semicolon or tab separates its
    values, whichever is most frequent in the first line, which names the columns. Another encoding
    is an error: guessed wrongly, it would change names and pseudonyms.

    Args:
        path: a CSV or Parquet file; its content decides which, not its name.
        wanted: the columns.
        progress: called with a line about a column that may be meant, but is not read.

    Returns:
        Text, without blanks around it, and "" where there is none. NA, NULL and the like count as
        none, but not as path or label. The index is the number of the row in a spreadsheet: the
        first has the names of the columns. Rows without any value are left out.

    Raises:
        TableError: there is no such table, it is neither CSV nor Parquet, it lacks a column or has
            one twice, it has no rows, or it is broken.
    """
    rows = part(path, wanted, progress)
    if rows.empty:
        raise TableError(f"the table {path} has no rows below the names of its columns")
    return rows


def part(path: Path, wanted: Wanted, progress: Progress) -> pd.DataFrame:
    """As :func:`read`, but of a file that may have no rows."""
    try:
        with path.open("rb") as stream:
            start = stream.read(max(map(len, (*_OTHERS, _PARQUET))))
    except OSError as error:
        raise TableError(f"the table {path.absolute()} cannot be read: {error.strerror}") from error
    for other, what in _OTHERS.items():
        if start.startswith(other):
            raise TableError(f"{path} is {what}")
    names, columns = _parquet(path) if start.startswith(_PARQUET) else _csv(path)
    rows = pd.DataFrame(
        {key: columns(place) for place, key in wanted.choose(path, names, progress).items()}
    )
    rows.index = pd.RangeIndex(FIRST, FIRST + len(rows))
    for name in rows:
        rows[name] = said(str(name), rows[name])
    return rows[(rows != "").any(axis=1)]


def said(name: str, values: pd.Series) -> pd.Series:
    """Text as :func:`read` returns it.

    Args:
        name: of the column, here.
        values: text as it stands in the file, or None.
    """
    text = values.fillna("").str.strip()
    nothing = text.str.lower().isin([] if name in _VERBATIM else _NOTHING)
    return text.mask(nothing, "")


_Columns = Callable[[int], pd.Series]


def _parquet(path: Path) -> tuple[list[str], _Columns]:
    def broken(error: Exception) -> TableError:
        return TableError(f"{path} cannot be read as Parquet ({_short(error)}): write it again")

    try:
        table = pq.ParquetFile(path)
        names = table.schema_arrow.names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise broken(error) from error

    def column(place: int) -> pd.Series:
        try:
            values = table.read([names[place]]).column(0)
            if pa.types.is_dictionary(values.type):
                values = values.cast(values.type.value_type)
            return values.cast(pa.string()).to_pandas().astype(object)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise broken(error) from error

    return [name.strip() for name in names], column


def _csv(path: Path) -> tuple[list[str], _Columns]:
    text = _decoded(path, path.read_bytes())
    delimiter, names = _header(path, text)
    try:
        # The names as a row, and no choice of columns: only so is a row with more values than there
        # are names an error.
        rows = pd.read_csv(
            BytesIO(text.encode()),
            sep=delimiter,
            header=None,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
        )
    except ValueError as error:  # pandas' errors of parsing are such
        raise TableError(f"{path} cannot be read: {_explained(error)}") from error
    return names, lambda place: rows[place].iloc[1:]


def _decoded(path: Path, content: bytes) -> str:
    if not content.strip():
        raise TableError(f"the table {path} is empty")
    marks = (name for mark, name in _ENCODINGS.items() if content.startswith(mark))
    encoding = next(marks, "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TableError(
            f"{path} is not {encoding.removesuffix('-sig').upper()}: byte "
            f"0x{content[error.start]:02x} in line {line}. Save it as 'CSV UTF-8', or convert it, "
            "as by iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
    if "\0" in text:
        raise TableError(f"{path} is no table: it holds NUL bytes. Save it as 'CSV UTF-8'")
    return text


def _header(path: Path, text: str) -> tuple[str, list[str]]:
    """What separates the values, and the names of the columns."""
    line = re.match(r'(?:"[^"]*"|[^"\r\n])*', text)
    first = line[0] if line else ""
    if not first.strip():
        raise TableError(f"the first line of {path} is empty: it must name the columns")
    if re.match('"?sep=', first):
        raise TableError(
            f"the first line of {path} is {first!r}, which only Excel reads: remove that line"
        )
    delimiter = max(_DELIMITERS, key=re.sub(r'"[^"]*"', "", first).count)
    try:
        names = next(csv.reader([first], delimiter=delimiter))
    except csv.Error as error:
        raise TableError(f"the first line of {path} names no columns: {error}") from error
    return delimiter, [name.strip() for name in names]


def _explained(error: Exception) -> str:
    counted = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if counted:
        return (
            f"line {counted[2]} has {counted[3]} values, but there are {counted[1]} columns. Put "
            "values that hold the separator in double quotes, and end no line with a separator "
            "if the first has none there"
        )
    if unclosed := re.search(r"EOF inside string starting at row (\d+)", str(error)):
        return f"the double quote in row {int(unclosed[1]) + 1} is never closed. Remove it"
    return f"{_short(error)}. Save it as 'CSV UTF-8' again"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
