"""Several machines, each a folder of its own, and a bucket between them."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import bundles
import pytest
import s3

from cxr_assets import exchange, lease, written
from cxr_assets.evaluation.reports import REPORT
from cxr_assets.exchange import exchanged
from cxr_assets.layout import Layout
from cxr_serving.model import remote, store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.remote import Bucket
from cxr_serving.model.remote_errors import (
    ConflictError,
    NoConditionsError,
    RemoteError,
    UnreachableError,
)

ASSET = "convnext_model"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SECONDS_OF_SILENCE", 3)
    monkeypatch.setattr(remote, "_ATTEMPTS", 1)


@pytest.fixture
def machine(tmp_path: Path, storage: s3.Storage) -> Callable[[str], Layout]:
    return lambda name: Layout(tmp_path / name, s3.URL)


def quiet(line: str) -> None: ...


def publish(layout: Layout, number: int, point: bool = True) -> str:
    record = bundles.record(number, fingerprint=f"{number:08x}" + "0" * 56)
    record = record.model_copy(
        update={"version": record.version[:-8] + f"{number:08x}"},
    )
    return store.publish(layout.models(ASSET), record, bundles.write_files, point).name


def report(layout: Layout, version: str, text: str) -> None:
    directory = layout.reports / version
    shutil.rmtree(directory, ignore_errors=True)
    written.begin(directory, REPORT)
    (directory / "report.html").write_text(text)
    written.seal(directory, REPORT)
    (layout.reports / "report.html").write_text(text)
    store.write_pointer(layout.reports, version)


def pointed(storage: s3.Storage) -> str | None:
    """The version that the bucket's pointer names; what it names is always there."""
    key = f"cxr/models/{ASSET}/latest.json"
    if not storage.has(key):
        return None
    version = storage.content(key).decode().split('"')[3]
    assert storage.has(f"cxr/models/{ASSET}/{version}.tar")
    return version


def test_one_machine_resumes_what_the_other_left(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a, b = machine("a"), machine("b")
    with exchanged(a, quiet):
        version = publish(a, 1)
        report(a, version, "first")
        a.decisions.mkdir()
        (a.decisions / f"20260101T000000000000Z-{version}.json").write_text("{}")
        a.withdrawn.write_text("patient\n")
        a.raw.mkdir()
        (a.raw / "image.png").write_text("stays here")
    with exchanged(b, quiet):
        assert store.verify(store.latest(b.models(ASSET))).version == version
        assert written.fault(b.reports / version) is None
        assert (b.reports / "report.html").read_text() == "first"
        assert len(list(b.decisions.iterdir())) == 1
        assert b.withdrawn.read_text() == "patient\n"
        assert not b.raw.exists()
        second = publish(b, 2)
        report(b, version, "without a patient")
        store.write_pointer(b.reports, version)
        shutil.rmtree(b.models(ASSET) / version)
    exchange.pull(a, quiet)
    assert store.versions(a.models(ASSET)) == [second]
    assert (a.reports / version / "report.html").read_text() == "without a patient"
    assert pointed(storage) == second
    before = storage.network.passed["down"]
    exchange.pull(a, quiet)
    assert storage.network.passed["down"] - before < 20_000  # the list alone


def test_folder_is_left_as_it_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    with exchanged(layout, quiet):
        publish(layout, 1)
    exchange.pull(layout, quiet)
    assert [path.name for path in layout.root.iterdir()] == ["models"]


@pytest.mark.parametrize("way", ["up", "down"])
def test_network_cut_at_any_byte_of_a_publication(
    machine: Callable[[str], Layout], storage: s3.Storage, way: str
) -> None:
    layout = machine("a")
    before = storage.network.passed[way]
    with exchanged(layout, quiet):
        first = publish(layout, 0)
    total = storage.network.passed[way] - before
    current, failed = first, 0
    # Each is noticed only after some seconds: more of them in `make s3`.
    parts = 6 if "PUBLICATIONS" in os.environ else 3
    for number in range(1, parts):
        storage.network.cut(**{way: total * number / parts})
        version = f"{number}"
        try:
            with exchanged(layout, quiet):
                version = publish(layout, number)
        except RemoteError:
            failed += 1
        storage.network.mend()
        assert pointed(storage) in (current, version)
        # The next step leaves there what was kept back, and ends what was begun.
        monitor = machine(f"machine-{number}")
        _expire(storage)
        with exchanged(layout, quiet):
            if version == f"{number}":
                version = publish(layout, number)
        assert pointed(storage) == version
        current = version
        exchange.pull(monitor, quiet)
        assert store.verify(store.latest(monitor.models(ASSET))).version == version
    assert failed >= parts // 2


def _expire(storage: s3.Storage) -> None:
    """As if a minute had passed since a dead holder renewed its lease."""
    key = "cxr/locks/changes.json"
    if storage.has(key):
        storage.client.delete_object(Bucket=s3.BUCKET, Key=key)


def test_of_two_writers_at_once_one_wins_and_the_other_says_so(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a, b = machine("a"), machine("b")
    made = []

    def both() -> None:
        with exchanged(a, quiet):
            made.append(publish(a, 1))
            _expire(storage)  # A was suspended, B took over
            with exchanged(b, quiet):
                made.append(publish(b, 2))

    with pytest.raises(ConflictError, match=r"latest.json was changed by another process"):
        both()
    lost, won = made
    assert pointed(storage) == won
    # What the loser made is not lost, and served by nobody until it is published again.
    with exchanged(a, quiet):
        assert store.latest(a.models(ASSET)).name == won
        assert lost in store.versions(a.models(ASSET))
        store.write_pointer(a.models(ASSET), lost)
    assert pointed(storage) == lost


def test_second_writer_waits_for_the_first(
    machine: Callable[[str], Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    bucket = Bucket(machine("a").url or "")
    with lease.held(bucket, "locks/x.json", "a model is trained", quiet, seconds=3) as first:
        started = time.monotonic()
        first._released.set()  # its process is dead: it renews no more
        with lease.held(bucket, "locks/x.json", "a model is trained", lines.append, seconds=3):
            assert time.monotonic() - started >= 2  # not before it had expired
            first._renewed -= 3  # the machine may have been suspended, its clock, too
            with pytest.raises(ConflictError, match="could not be renewed"):
                first.require()
        assert len(lines) == 1
        assert "a model is trained by " in lines[0]
    # Released, it is free at once.
    with lease.held(bucket, "locks/x.json", "", lines.append, seconds=1000) as third:
        third.require()
    assert len(lines) == 1


def test_lease_is_renewed_while_it_is_held(machine: Callable[[str], Layout]) -> None:
    bucket = Bucket(machine("a").url or "")
    with lease.held(bucket, "locks/x.json", "", quiet, seconds=2) as held:
        etags = set()
        deadline = time.monotonic() + 60
        while len(etags) < 4:
            assert time.monotonic() < deadline
            etags.add(bucket.etag("locks/x.json"))
            time.sleep(0.1)
        held.require()


def test_lost_local_folder_deletes_nothing_in_the_bucket(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a = machine("a")
    with exchanged(a, quiet):
        version = publish(a, 1)
    shutil.rmtree(a.models(ASSET))
    with exchanged(a, quiet):
        assert store.verify(store.latest(a.models(ASSET))).version == version
    assert pointed(storage) == version


def test_bucket_that_was_emptied_empties_no_copy(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a = machine("a")
    with exchanged(a, quiet):
        version = publish(a, 1)
    storage.empty()
    with pytest.raises(RemoteError, match=r"s3://hospital/cxr is empty, but .* is a copy"):
        exchange.pull(a, quiet)
    a.exchanged.unlink()
    with exchanged(a, quiet):
        pass
    assert pointed(storage) == version


def test_damaged_version_is_left_out_and_made_again(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a, b = machine("a"), machine("b")
    with exchanged(a, quiet):
        version = publish(a, 1)
        report(a, version, "first")
    storage.damage(f"cxr/reports/{version}.tar")
    lines: list[str] = []
    with exchanged(b, lines.append):
        assert f"cxr/reports/{version}.tar does not match its sha256" in lines[0]
        assert not (b.reports / version).exists()
        report(b, version, "again")
    exchange.pull(a, quiet)
    assert (a.reports / version / "report.html").read_text() == "again"


def test_step_that_fails_leaves_there_what_it_has_done(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a = machine("a")

    def step() -> None:
        with exchanged(a, quiet):
            publish(a, 1)
            a.withdrawn.write_text("patient\n")
            raise BundleError("the report failed")

    with pytest.raises(BundleError, match="the report failed"):
        step()
    assert storage.content("cxr/withdrawn.csv") == b"patient\n"


def test_two_withdrawals_at_once_are_both_kept(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a, b = machine("a"), machine("b")
    for layout in (a, b):
        exchange.pull(layout, quiet)
    a.root.mkdir(exist_ok=True)
    a.withdrawn.write_text("first patient\n")  # a step that was killed before it ended
    with exchanged(b, quiet):
        b.withdrawn.write_text("second patient\n")
    with pytest.raises(ConflictError, match=r"withdrawn.csv have both changed: move the file"):
        exchange.pull(a, quiet)
    assert a.withdrawn.read_text() == "first patient\n"
    assert storage.content("cxr/withdrawn.csv") == b"second patient\n"


def test_unreachable_bucket_stops_a_step_before_it_begins(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    storage.network.cut(down=0)
    began = False
    with pytest.raises(UnreachableError), exchanged(machine("a"), quiet):
        began = True
    assert not began


@pytest.mark.parametrize(
    ("lacks", "answer", "message"),
    [
        ("IF_NONE_MATCH", None, "replaces it on a condition that is false; use one with"),
        ("IF_MATCH", None, "replaces it on a condition that is false; use one with"),
        ("IF_NONE_MATCH", "501 Not Implemented", "answers 501; use one with"),
        ("IF_MATCH", "412 Precondition Failed", "says it has changed, but it has not; use one"),
    ],
)
def test_server_without_conditional_writes_is_rejected_before_a_step_begins(
    machine: Callable[[str], Layout],
    storage: s3.Storage,
    lacks: str,
    answer: str | None,
    message: str,
) -> None:
    if storage.moto is None:
        pytest.skip("the server of S3_ENDPOINT is as it is")
    storage.moto.lacks, storage.moto.answer = lacks, answer
    began = False
    for layout in (machine("a"), machine("b")):
        with pytest.raises(NoConditionsError, match=message), exchanged(layout, quiet):
            began = True
    assert not began
