"""Patients who withdrew their consent: a record that outlives every table, folder and download."""

import csv
import io
from datetime import UTC, datetime

from filelock import FileLock

from cxr_assets.layout import Layout
from cxr_serving.model import atomic

_COLUMNS = ["patient", "withdrawn_at"]


class WithdrawalError(Exception):
    """The record of withdrawn patients cannot be read; the message says where it is broken."""


def withdrawn(layout: Layout) -> frozenset[str]:
    """The patients who withdrew their consent, each ``<source>/<patient as the source has it>``.

    Raises:
        WithdrawalError: the record is broken. It is never taken for an empty one.
    """
    return frozenset(_read(layout))


def record(layout: Layout, patient: str, now: datetime) -> bool:
    """Add a patient to the record, on disk when this returns.

    Args:
        layout: the record is ``layout.withdrawn``.
        patient: ``<source>/<patient as the source has it>``.
        now: aware time, recorded in UTC.

    Returns:
        False if the patient was on record, whose time stays.

    Raises:
        WithdrawalError: the record is broken.
    """
    layout.root.mkdir(parents=True, exist_ok=True)
    with FileLock(layout.root / ".withdrawn.lock"):
        times = _read(layout)
        if patient in times:
            return False
        times[patient] = now.astimezone(UTC).isoformat(timespec="seconds")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([_COLUMNS, *times.items()])
        atomic.write_file(layout.withdrawn, text.getvalue().encode())
    return True


def _read(layout: Layout) -> dict[str, str]:
    """Time of withdrawal by patient."""
    path = layout.withdrawn
    try:
        # Spreadsheets put a byte order mark in front.
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file, strict=True)) or [[]]
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError, csv.Error) as error:
        raise WithdrawalError(f"{path} cannot be read ({error}): {_REMEDY}") from error
    if header != _COLUMNS:
        raise WithdrawalError(f"{path} does not begin with {','.join(_COLUMNS)}: {_REMEDY}")
    for number, row in enumerate(rows, 2):
        if len(row) != len(_COLUMNS) or "/" not in row[0].strip("/"):
            raise WithdrawalError(
                f"row {number} of {path} is not <source>/<patient>,<time>: {_REMEDY}"
            )
    return dict(rows)


_REMEDY = (
    "mend it, or restore it from a backup. Nothing is prepared until then, since a patient who "
    "withdrew consent could come back"
)
