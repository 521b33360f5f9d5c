from datetime import UTC, datetime, timedelta, timezone

import pytest

from cxr_assets.layout import Layout
from cxr_assets.radiographs.withdrawal import WithdrawalError, record, withdrawn

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=1)))


def test_nobody_withdrew_without_a_record(layout: Layout) -> None:
    assert withdrawn(layout) == frozenset()
    assert not layout.root.exists()


def test_a_patient_is_recorded_once_with_the_first_time(layout: Layout) -> None:
    patients = ['clinic/A,"1"', "folder/normal/IM-0115", "clinic/0012", "clinic/Ä 1"]
    assert all(record(layout, patient, ["b"], NOW) for patient in patients)
    assert not record(layout, "clinic/0012", ["a"], datetime(2027, 1, 1, tzinfo=UTC))
    assert withdrawn(layout) == set(patients)
    lines = layout.withdrawn.read_text().splitlines()
    assert lines[0] == "patient,withdrawn_at,images"
    assert lines[3] == "clinic/0012,2026-03-01T11:00:00+00:00,a b"


def test_a_record_saved_by_a_spreadsheet_is_read(layout: Layout) -> None:
    record(layout, "clinic/A1", [], NOW)
    text = layout.withdrawn.read_text()
    layout.withdrawn.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert withdrawn(layout) == {"clinic/A1"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with patient,withdrawn_at,images"),
        (b"patient;withdrawn_at;images\nclinic/A1;x;\n", "does not begin with"),
        (b"patient,withdrawn_at,images\nclinic/A1,x,\nA2,x,\n", "row 3 of"),
        (b"patient,withdrawn_at,images\n\n", "row 2 of"),
        (b'patient,withdrawn_at,images\n"clinic/A1,x,\n', "cannot be read"),
        (b"patient,withdrawn_at,images\nclinic/\xff,x,\n", "cannot be read"),
    ],
)
def test_a_broken_record_is_never_an_empty_one(
    content: bytes, message: str, layout: Layout
) -> None:
    layout.root.mkdir()
    layout.withdrawn.write_bytes(content)
    for read in (withdrawn, lambda layout: record(layout, "clinic/B", [], NOW)):
        with pytest.raises(WithdrawalError, match=message):
            read(layout)
    assert layout.withdrawn.read_bytes() == content
