"""Patients who withdrew their consent: a record that outlives every table, folder and download."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from filelock import FileLock

from cxr_assets.layout import Layout
from cxr_serving.model import atomic

# The problem of an image in the inventory, and its reason in the manifest.
WITHDRAWN = "withdrawn: the patient withdrew consent"
_COLUMNS = ["patient", "withdrawn_at", "images"]


class WithdrawalError(Exception):
    """The record of withdrawn patients cannot be read; the message says where it is broken."""


@dataclass(frozen=True)
class Withdrawal:
    """A row of the record.

    Attributes:
        time: when the patient was recorded, in UTC and ISO 8601.
        images: sha256 of the image files that were known then, hexadecimal.
    """

    time: str
    images: frozenset[str]


def withdrawn(layout: Layout) -> frozenset[str]:
    """The patients who withdrew their consent, each ``<source>/<patient as the source has it>``.

    Raises:
        WithdrawalError: the record is broken. It is never taken for an empty one.
    """
    return frozenset(read(layout))


def record(layout: Layout, patient: str, images: Iterable[str], now: datetime) -> bool:
    """Add a patient to the record, on disk when this returns.

    Args:
        layout: the record is ``layout.withdrawn``.
        patient: ``<source>/<patient as the source has it>``.
        images: sha256 of the patient's image files, added to those on record: they tell which
            models were trained with them when no dataset does any more.
        now: aware time.

    Returns:
        False if the patient was on record; its time stays.

    Raises:
        WithdrawalError: the record is broken.
    """
    layout.root.mkdir(parents=True, exist_ok=True)
    with FileLock(layout.root / ".withdrawn.lock"):
        rows = read(layout)
        before = rows.get(patient)
        time = before.time if before else now.astimezone(UTC).isoformat(timespec="seconds")
        known = before.images if before else frozenset()
        row = Withdrawal(time, known | frozenset(images))
        if row == before:
            return False
        rows[patient] = row
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(
            [patient, row.time, " ".join(sorted(row.images))] for patient, row in rows.items()
        )
        atomic.write_file(layout.withdrawn, text.getvalue().encode())
    return before is None


def read(layout: Layout) -> dict[str, Withdrawal]:
    """The record, by patient.

    Raises:
        WithdrawalError: it is broken.
    """
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
                f"row {number} of {path} is not <source>/<patient>,<time>,<images>: {_REMEDY}"
            )
    return {patient: Withdrawal(time, frozenset(images.split())) for patient, time, images in rows}


_REMEDY = (
    "mend it, or restore it from a backup. Nothing is prepared until then, since a patient who "
    "withdrew consent could come back"
)
