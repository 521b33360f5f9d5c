import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import s3

from cxr_serving.model import remote
from cxr_serving.model.remote import Bucket
from cxr_serving.model.remote_errors import (
    ConflictError,
    DamagedError,
    RemoteError,
    UnreachableError,
)

pytestmark = pytest.mark.usefixtures("impatient")


def test_object_is_written_listed_read_and_deleted(
    bucket: Bucket, storage: s3.Storage, tmp_path: Path
) -> None:
    etag = bucket.write("a/note", b"one", seen=None)
    assert storage.keys() == {"cxr/a/note"}
    assert bucket.list("a/") == {"a/note": etag} == bucket.list()
    assert bucket.list("b/") == {}
    found = bucket.read("a/note")
    assert found is not None
    assert (found.content, found.etag, bucket.etag("a/note")) == (b"one", etag, etag)
    assert found.age.total_seconds() < 60
    assert bucket.download("a/note", tmp_path / "note") == etag
    assert (tmp_path / "note").read_bytes() == b"one"
    bucket.delete("a/note")
    assert bucket.read("a/note") is None
    assert bucket.etag("a/note") is None
    with pytest.raises(DamagedError, match=r"s3://hospital/cxr/a/note does not exist"):
        bucket.download("a/note", tmp_path / "note")


def test_whoever_has_not_seen_what_is_there_does_not_replace_it(bucket: Bucket) -> None:
    first = bucket.write("note", b"one", seen=None)
    with pytest.raises(ConflictError, match=r"cxr/note was changed by another process"):
        bucket.write("note", b"two", seen=None)
    second = bucket.write("note", b"two", seen=first)
    for seen in (first, None):
        with pytest.raises(ConflictError):
            bucket.write("note", b"three", seen=seen)
    with pytest.raises(ConflictError):
        bucket.write("missing", b"two", seen=second)
    found = bucket.read("note")
    assert found is not None
    assert found.content == b"two"


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.usefixtures("storage")
def test_of_many_writers_at_once_one_wins(monkeypatch: pytest.MonkeyPatch, replaced: bool) -> None:
    monkeypatch.setattr(remote, "_ATTEMPTS", 3)  # Ceph 16 has some of the others try again
    bucket = Bucket(s3.URL)
    seen = bucket.write("note", b"before", seen=None) if replaced else None
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        try:
            bucket.write("note", f"{number}".encode(), seen)
            outcomes.append(f"{number}")
        except ConflictError:
            outcomes.append("conflict")

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(outcomes) == 8
    [winner] = [outcome for outcome in outcomes if outcome != "conflict"]
    found = bucket.read("note")
    assert found is not None
    assert found.content == winner.encode()


def test_writing_whose_answer_was_lost_has_been_done(bucket: Bucket, storage: s3.Storage) -> None:
    storage.network.cut(down=60)
    with pytest.raises(UnreachableError):
        bucket.write("note", b"one", seen=None)
    assert storage.content("cxr/note") == b"one"
    storage.network.mend()
    assert bucket.write("note", b"one", seen=None) == bucket.etag("note")


@pytest.mark.parametrize("way", ["up", "down"])
def test_cut_transfer_leaves_nothing(
    bucket: Bucket, storage: s3.Storage, tmp_path: Path, way: str
) -> None:
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(bytes(300_000))
    transfers: dict[str, Callable[[], object]] = {
        "up": lambda: bucket.write("large", sent, seen=None),
        "down": lambda: bucket.download("large", received),
    }
    if way == "down":
        transfers["up"]()
    storage.network.cut(**{way: 100_000})
    with pytest.raises(UnreachableError, match=r"cxr/large cannot be reached"):
        transfers[way]()
    assert storage.keys() == ({"cxr/large"} if way == "down" else set())
    assert list(tmp_path.iterdir()) == [sent]
    storage.network.mend()
    transfers[way]()
    assert bucket.download("large", received) == bucket.etag("large")
    assert received.read_bytes() == sent.read_bytes()


# Half of a date makes dateutil warn.
@pytest.mark.filterwarnings("ignore:tzname .* identified but not understood")
@pytest.mark.parametrize("kind", ["write", "etag", "read", "list"])
def test_part_of_an_answer_is_not_taken_for_the_whole(
    bucket: Bucket, storage: s3.Storage, kind: str
) -> None:
    def read() -> tuple[bytes, str]:
        found = bucket.read("note")
        assert found is not None
        return found.content, found.etag

    requests: dict[str, Callable[[], object]] = {
        "write": lambda: bucket.write("note", b"one", seen=None),
        "etag": lambda: bucket.etag("note"),
        "read": read,
        "list": bucket.list,
    }
    bucket.write("note", b"one", seen=None)
    if kind == "write":
        storage.empty()
    before = storage.network.passed["down"]
    whole = requests[kind]()
    size = storage.network.passed["down"] - before
    failed = 0
    for number in range(1, size, 12):
        if kind == "write":
            storage.empty()
        storage.network.cut(down=number)
        try:
            assert requests[kind]() == whole
        except UnreachableError:
            failed += 1
        storage.network.mend()
    assert failed > 5
    assert requests[kind]() == whole


def test_silent_server_is_given_up(storage: s3.Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SECONDS_OF_SILENCE", 1)
    storage.network.slow(1)
    with pytest.raises(UnreachableError):
        Bucket(s3.URL).list()


def test_damaged_object_is_noticed(bucket: Bucket, storage: s3.Storage, tmp_path: Path) -> None:
    bucket.write("note", b"one", seen=None)
    storage.damage("cxr/note")
    reads: list[Callable[[], object]] = [
        lambda: bucket.read("note"),
        lambda: bucket.download("note", tmp_path / "note"),
    ]
    for read in reads:
        with pytest.raises(DamagedError, match=r"cxr/note does not match its sha256"):
            read()


def test_download_stops_when_it_is_no_longer_wanted(bucket: Bucket, tmp_path: Path) -> None:
    bucket.write("large", bytes(2**20 + 1), seen=None)
    with pytest.raises(UnreachableError, match="was stopped"):
        bucket.download("large", tmp_path / "large", going=lambda: False)


@pytest.mark.usefixtures("storage")
def test_wrong_bucket_and_missing_key_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteError, match=r"s3://clinic/x/note.*NoSuchBucket.*check the bucket"):
        Bucket("s3://clinic/x").write("note", b"", seen=None)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(RemoteError, match="set AWS_ACCESS_KEY_ID"):
        Bucket(s3.URL).read("note")
