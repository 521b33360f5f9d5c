import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from bundles import record, write_files
from hypothesis import given
from hypothesis import strategies as st

from cxr_serving.model import bundle, store
from cxr_serving.model.bundle import BundleError, BundleRecord, FormatError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "../../etc"}, "version: String should match"),
        ({"temperature": 0}, "temperature: Input should be greater than 0"),
        ({"created_at": "2026-11-22T03:00:00"}, "created_at: Input should have timezone"),
    ],
)
def test_record_that_is_not_one_is_rejected(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    final = store.publish(tmp_path, record(), write_files)
    path = final / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=message) as error:
        BundleRecord.read(final)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("version", [2, 4])
def test_record_of_another_format_says_what_to_do(tmp_path: Path, version: int) -> None:
    final = store.publish(tmp_path, record(), write_files)
    path = final / "bundle.json"
    written = json.loads(path.read_text()) | {"format_version": version, "shape": "other"}
    path.write_text(json.dumps(written))
    with pytest.raises(FormatError, match=r"Input should be 3.*: materialise the models again"):
        BundleRecord.read(final)


@given(
    st.binary(max_size=200)
    | st.text(max_size=50).map(lambda t: json.dumps({"version": t}).encode())
)
def test_pointer_with_any_contents_names_a_version_or_is_rejected(
    tmp_path_factory: pytest.TempPathFactory, contents: bytes
) -> None:
    directory = tmp_path_factory.getbasetemp() / "pointers"
    directory.mkdir(exist_ok=True)
    (directory / "latest.json").write_bytes(contents)
    with contextlib.suppress(BundleError):
        version = store.read_pointer(directory)
        assert version is not None
        assert bundle.is_version(version)


@given(
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),
    st.integers(-12, 14),
)
def test_versions_name_the_instant_in_utc(fingerprint: str, made: datetime, offset: int) -> None:
    local = made.replace(tzinfo=timezone(timedelta(hours=offset)))
    version = bundle.new_version(fingerprint, local)
    assert bundle.is_version(version)
    assert version == bundle.new_version(fingerprint, local.astimezone(UTC))
    assert version < bundle.new_version(fingerprint, local + timedelta(seconds=1))
    assert version.endswith(fingerprint[:8])
