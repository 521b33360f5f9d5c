"""The network fails, machines die or are suspended, and several publish at once."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import s3
from machines import ASSET, pointed, process, publish, quiet, report

from cxr_assets import exchange, lease, written
from cxr_assets.exchange import exchanged
from cxr_assets.layout import Layout
from cxr_serving.model import remote, store
from cxr_serving.model.remote_errors import ConflictError, RemoteError, UnreachableError


@pytest.fixture
def impatient(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut is noticed soon, but an answer of a busy machine may take some seconds."""
    monkeypatch.setattr(remote, "_SECONDS_OF_SILENCE", 10)


@pytest.mark.usefixtures("brief", "impatient")
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
        with exchanged(layout, quiet):
            if version == f"{number}":
                version = publish(layout, number)
        assert pointed(storage) == version
        current = version
        exchange.pull(monitor, quiet)
        assert store.verify(store.latest(monitor.models(ASSET))).version == version
    assert failed >= parts // 2


@pytest.mark.usefixtures("brief", "impatient")
def test_whoever_was_away_for_too_long_replaces_nothing(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a, b = machine("a"), machine("b")
    made = []

    def both() -> None:
        with exchanged(a, quiet):
            made.append(publish(a, 1))
            storage.network.cut(up=0)
            with storage.other_network(), exchanged(b, quiet):
                made.append(publish(b, 2))
            storage.network.mend()

    with pytest.raises(ConflictError, match=r"changes.json could not be .*: do the same again"):
        both()
    lost, won = made
    assert pointed(storage) == won
    assert not storage.has(f"cxr/models/{ASSET}/{lost}.tar")
    # What the loser made is not lost, and served by nobody until it is published again.
    with exchanged(a, quiet):
        assert store.latest(a.models(ASSET)).name == won
        assert lost in store.versions(a.models(ASSET))
        store.write_pointer(a.models(ASSET), lost)
    assert pointed(storage) == lost


def test_pointer_that_was_changed_meanwhile_is_not_replaced(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    a = machine("a")
    with exchanged(a, quiet):
        publish(a, 1)
    key = f"cxr/models/{ASSET}/latest.json"

    def step() -> None:
        with exchanged(a, quiet):
            publish(a, 2)
            storage.client.put_object(Bucket=s3.BUCKET, Key=key, Body=b"by a tool without a lease")

    with pytest.raises(ConflictError, match=r"latest.json was changed by another process"):
        step()
    assert storage.content(key) == b"by a tool without a lease"


def test_two_processes_that_publish_at_once_lose_nothing(
    machine: Callable[[str], Layout], storage: s3.Storage, tmp_path: Path
) -> None:
    with (
        process("publish", tmp_path / "a", 1, 2) as first,
        process("publish", tmp_path / "b", 3, 4) as second,
    ):
        for writer in (first, second):
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        for writer in (first, second):
            _, errors = writer.communicate(timeout=120)
            assert writer.returncode == 0, errors
    third = machine("c")
    exchange.pull(third, quiet)
    versions = store.versions(third.models(ASSET))
    assert {int(version[-8:]) for version in versions} == {1, 2, 3, 4}
    for version in versions:
        store.verify(third.models(ASSET) / version)
    assert pointed(storage) in versions
    assert int((pointed(storage) or "")[-8:]) in (2, 4)


@pytest.mark.usefixtures("brief")
def test_slow_publication_keeps_its_lease(
    machine: Callable[[str], Layout], storage: s3.Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SECONDS_OF_SILENCE", 60)
    a, b = machine("a"), machine("b")
    waiting = threading.Event()
    found: list[str | None] = []

    def second() -> None:
        with exchanged(b, lambda line: waiting.set()):
            found.append(pointed(storage))
            publish(b, 2)

    thread = threading.Thread(target=second)
    with ExitStack() as network:
        with exchanged(a, quiet):
            first = publish(a, 1)
            report(a, first, 60_000 * ".")
            network.enter_context(storage.other_network())
            thread.start()
            assert waiting.wait(60)
            began = time.monotonic()
            # The page is sent twice: in the version, and as the newest one.
            storage.network.slow(120_000 / (3 * lease.SECONDS))
        lasted = time.monotonic() - began
        thread.join(60)
    assert lasted > 2 * lease.SECONDS
    assert found == [first]
    exchange.pull(a, quiet)
    assert {int(version[-8:]) for version in store.versions(a.models(ASSET))} == {1, 2}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_what_is_cut_on_arrival_is_not_there(
    machine: Callable[[str], Layout], storage: s3.Storage, share: float
) -> None:
    a, b, c = machine("a"), machine("b"), machine("c")
    with exchanged(a, quiet):
        version = publish(a, 1)
        report(a, version, "first")
    before = storage.network.passed["down"]
    exchange.pull(b, quiet)
    storage.network.cut(down=share * (storage.network.passed["down"] - before))
    with pytest.raises(UnreachableError):
        exchange.pull(c, quiet)
    assert not list(c.root.rglob("*.partial"))
    for directory in (*c.models(ASSET).glob("2*"), *c.reports.glob("2*")):
        exchange._check(directory)
    pointer = store.read_pointer(c.models(ASSET))
    assert pointer is None or store.verify(c.models(ASSET) / pointer)
    storage.network.mend()
    exchange.pull(c, quiet)
    assert store.verify(store.latest(c.models(ASSET))).version == version
    assert written.fault(c.reports / version) is None


@pytest.mark.usefixtures("impatient")
def test_unreachable_bucket_stops_a_step_before_it_begins(
    machine: Callable[[str], Layout], storage: s3.Storage
) -> None:
    storage.network.cut(down=0)
    began = False
    with pytest.raises(UnreachableError), exchanged(machine("a"), quiet):
        began = True
    assert not began
