"""The table of ``cxr predict``: one CSV row per image, resumed if it exists."""

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cxr_serving.model.bundle import BundleRecord


class TableError(Exception):
    """The table cannot be written or resumed; the message says why."""


@contextmanager
def table(path: Path | None, record: BundleRecord) -> Iterator[tuple[TextIO, set[str]]]:
    """A CSV file to append to, with its header, and the images that it already has.

    It is UTF-8 in every locale, and any file name fits in one field. The last row of a table that
    was cut short by a kill is dropped if it is incomplete.

    Args:
        path: of the table; standard output when None.
        record: of the model; each row names its version.

    Raises:
        TableError: the file is another table or holds predictions of another model, or cannot be
            read or written.
    """
    classes = record.classes
    header = ["image", "label", *classes, "accepted", "reasons", "repaired_label", "model"]
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", newline="")
        csv.writer(sys.stdout).writerow(header)
        yield sys.stdout, set()
        sys.stdout.flush()
        return
    try:
        content = path.read_bytes() if path.exists() else b""
        whole = content[: _whole(content)]
        try:
            lines = list(csv.reader(io.StringIO(whole.decode(), newline="")))
        except (UnicodeDecodeError, csv.Error):
            lines = [[]]  # unlike any header
        begun = lines[0] == header if lines else ",".join(header).encode().startswith(content)
        if not begun or any(len(line) != len(header) for line in lines):
            raise TableError(
                f"{path} is not a table with the columns {', '.join(header)}: name another file"
            )
        if others := {line[-1] for line in lines[1:]} - {record.version}:
            raise TableError(
                f"{path} holds predictions of model {', '.join(sorted(others))}, this one is "
                f"{record.version}: name another file"
            )
        with path.open("a", newline="", encoding="utf-8") as file:
            file.truncate(len(whole))
            if not lines:
                csv.writer(file).writerow(header)
            yield file, {line[0] for line in lines[1:]}
    except OSError as error:
        raise TableError(f"{path} cannot be read or written: {error}") from error


def _whole(content: bytes) -> int:
    """Length of the complete rows; a line break in quotes is part of a file name."""
    end = content.rfind(b"\n") + 1
    while content.count(b'"', 0, end) % 2:
        end = content.rfind(b"\n", 0, end - 1) + 1
    return end
