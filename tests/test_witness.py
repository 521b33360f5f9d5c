import threading
from dataclasses import dataclass, field

import pytest

from cxr_assets import witness
from cxr_assets.witness import TrackingError, Witness, masked


@dataclass
class Store:
    """A store that can be out of reach, or reject some records."""

    up: bool = True
    rejected: tuple[str, ...] = ()
    held: list[str] = field(default_factory=list)

    def reach(self) -> None:
        if not self.up:
            raise ConnectionError("no route to http://me:s3cret@store")

    def take(self, what: str) -> None:
        self.reach()
        if what in self.rejected:
            raise ValueError(f"{what} is not a record")
        self.held.append(what)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def lines() -> list[str]:
    return []


def observe(store: Store, lines: list[str], required: bool = False) -> Witness:
    return Witness("the store", store.reach, lines.append, required)


def record(observer: Witness, store: Store, *names: str) -> None:
    for name in names:
        observer.record(name, lambda name=name: store.take(name))  # type: ignore[misc]


def test_records_arrive_in_order(store: Store, lines: list[str]) -> None:
    observer = observe(store, lines)
    record(observer, store, "a", "b", "c")
    observer.close()
    assert store.held == ["a", "b", "c"]
    assert lines == []


def test_records_wait_for_a_store_that_comes_back(store: Store, lines: list[str]) -> None:
    observer = observe(store, lines)
    record(observer, store, "a")
    store.up = False
    record(observer, store, "b", "c")
    assert store.held == ["a"]
    store.up = True
    observer.close()
    assert store.held == ["a", "b", "c"]
    lost, back = lines
    assert "the store is out of reach (no route to http://***@store): continuing" in lost
    assert back == "the store is back and has received the 2 records that it missed"


def test_what_never_arrives_is_counted_at_the_end(store: Store, lines: list[str]) -> None:
    store.up = False
    observer = observe(store, lines)
    record(observer, store, "a", "b")
    observer.close()
    assert "2 records are lost, the first of them a." in lines[-1]


def test_a_record_that_is_rejected_does_not_hold_up_the_next(
    store: Store, lines: list[str]
) -> None:
    store.rejected = ("b",)
    observer = observe(store, lines)
    record(observer, store, "a", "b", "c")
    observer.close()
    assert store.held == ["a", "c"]
    assert "the store: a record is lost: b (b is not a record)." in lines[0]


def test_where_it_is_required_nothing_is_lost_in_silence(store: Store, lines: list[str]) -> None:
    store.rejected = ("a",)
    with pytest.raises(TrackingError, match=r"rejected a \(a is not a record\)"):
        record(observe(store, lines, required=True), store, "a")
    store.up = False
    with pytest.raises(TrackingError, match=r"out of reach \(no route to http://\*\*\*@store\)"):
        record(observe(store, lines, required=True), store, "a")


def test_a_store_that_hangs_holds_nothing_up_for_longer_than_the_limit(
    store: Store, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "LIMIT", 0.05)
    answers = threading.Event()
    observer = Witness("the store", answers.wait, lines.append, required=False)
    record(observer, store, *"abc")
    assert len(lines) == 1
    assert "out of reach" in lines[0]
    answers.set()
    monkeypatch.setattr(witness, "LIMIT", 60.0)
    observer.close()
    assert store.held == ["a", "b", "c"]


def test_names_and_passwords_in_addresses_are_masked() -> None:
    assert (
        masked("http://me:s3cret@host/a and http://other") == "http://***@host/a and http://other"
    )
