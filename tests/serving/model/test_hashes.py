from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from cxr_serving.model import hashes

RECORD = "record.json"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"content")
    (tmp_path / RECORD).write_text("{}")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "file").write_bytes(b"of a client of the hub")
    return tmp_path


def test_files_are_named_by_their_path_without_record_and_hidden_ones(directory: Path) -> None:
    assert hashes.of(directory, RECORD) == {"deep/file": sha256(b"content").hexdigest()}


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda path: None, None),
        (lambda path: path.write_bytes(b"Content"), "deep/file does not match its sha256 in"),
        (lambda path: path.unlink(), "deep/file is missing"),
        (lambda path: path.with_name("new").touch(), "deep/new is not named in record.json"),
    ],
)
def test_a_fault_names_the_file(
    directory: Path, damage: Callable[[Path], object], fault: str | None
) -> None:
    recorded = hashes.of(directory, RECORD)
    damage(directory / "deep" / "file")
    found = hashes.fault(directory, RECORD, recorded)
    assert (found is None) if fault is None else (found is not None and fault in found)
