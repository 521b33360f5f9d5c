"""What is released, held and promoted, on release folders that hold little more than a report."""

import getpass
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from releases import clause, release

from cxr_assets import decisions
from cxr_assets.decisions import Decision, DecisionError
from cxr_assets.layout import Layout
from cxr_assets.release import promotion
from cxr_assets.release.promotion import PromotionError, decide, promote
from cxr_serving.model import store
from cxr_serving.model.bundle import Pointer
from cxr_serving.model.report import METRICS_FILE


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_what_fulfils_every_clause_is_released(layout: Layout) -> None:
    first, second = release(layout, 1), release(layout, 2)
    assert decide(layout, first).champion is None
    decision = decide(layout, second)
    assert (decision.decision, decision.champion, decision.by) == ("released", first.name, None)
    assert decision.clauses == [clause(True)]
    assert store.read_pointer(layout.releases) == second.name
    assert [one.version for one in decisions.history(layout)] == [first.name, second.name]


def test_a_repeated_release_is_confirmed_and_a_held_one_confirms_nothing(layout: Layout) -> None:
    """As a service that follows releases sees it: the alert for an old model counts from there."""

    def confirmed_at() -> datetime:
        pointer = Pointer.read(layout.releases)
        assert pointer is not None
        return pointer.confirmed_at

    first, second = release(layout, 1), release(layout, 2, passed=False)
    decide(layout, first)
    made = confirmed_at()
    decide(layout, first)
    confirmed = confirmed_at()
    assert confirmed > made
    decide(layout, second)
    assert confirmed_at() == confirmed


def test_what_fails_a_clause_is_held_and_not_pushed(layout: Layout) -> None:
    first, second = release(layout, 1), release(layout, 2, passed=False)
    decide(layout, first)
    decision = decide(layout, second, push=lambda directory: pytest.fail("pushed"))
    assert decision.summary == "held: calibrated"
    assert store.read_pointer(layout.releases) == first.name
    assert promotion.newest_held(layout) == second.name


def test_what_is_withheld_is_held_with_the_reason(layout: Layout) -> None:
    decision = decide(layout, release(layout, 1), withheld="it was made from synthetic images")
    assert decision.summary == "held: it was made from synthetic images"
    assert store.read_pointer(layout.releases) is None


@pytest.mark.parametrize("passed", [True, False])
def test_the_same_again_writes_no_second_record(layout: Layout, passed: bool) -> None:
    directory = release(layout, 1, passed)
    first = decide(layout, directory)
    assert decide(layout, directory) == first
    assert len(list(layout.decisions.iterdir())) == 1


def killed_before_the_pointer(step: Callable[[], object]) -> None:
    """Run a step in a process that is killed when it would move the pointer."""

    def run() -> None:
        store.write_pointer = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
        step()

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


def test_a_kill_between_record_and_pointer_is_completed_by_the_next_call(layout: Layout) -> None:
    champion, directory = release(layout, 1), release(layout, 2)
    killed_before_the_pointer(lambda: decide(layout, champion))
    assert store.read_pointer(layout.releases) is None
    decide(layout, champion)
    killed_before_the_pointer(lambda: decide(layout, directory))
    assert store.read_pointer(layout.releases) == champion.name
    assert len(decisions.history(layout)) == 2, "on record before the pointer moves"
    assert decide(layout, directory).champion == champion.name
    assert store.read_pointer(layout.releases) == directory.name
    assert len(decisions.history(layout)) == 2


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("passed", [True, False])
def test_a_kill_before_the_pointer_is_completed_by_a_run_on_new_data(
    layout: Layout, first: bool, passed: bool
) -> None:
    if not first:
        decide(layout, release(layout, 1))
    killed = release(layout, 2)
    killed_before_the_pointer(lambda: decide(layout, killed))
    newer = release(layout, 3, passed)
    assert decide(layout, newer).champion == killed.name
    assert store.read_pointer(layout.releases) == (newer if passed else killed).name


def test_a_kill_before_the_pointer_does_not_undo_what_a_person_decided(layout: Layout) -> None:
    champion, held = release(layout, 1), release(layout, 2, passed=False)
    decide(layout, champion)
    decide(layout, held)
    killed_before_the_pointer(lambda: promote(layout, held.name, "two readers agree"))
    assert store.read_pointer(layout.releases) == champion.name
    assert decide(layout, held).decision == "promoted"
    assert store.read_pointer(layout.releases) == held.name
    assert [one.decision for one in decisions.history(layout)] == ["released", "held", "promoted"]


def test_a_pointer_that_was_deleted_has_its_version_decided_anew(layout: Layout) -> None:
    directory = release(layout, 1)
    decide(layout, directory)
    (layout.releases / "latest.json").unlink()
    assert decide(layout, directory, withheld="not now").decision == "held"
    decide(layout, release(layout, 2, passed=False))
    assert store.read_pointer(layout.releases) is None


def test_what_is_not_pushed_is_not_decided(layout: Layout) -> None:
    def offline(directory: Path) -> str:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        decide(layout, release(layout, 1), offline)
    assert not layout.decisions.exists()
    assert store.read_pointer(layout.releases) is None


def test_a_released_model_stays_released_and_its_later_push_is_on_record(layout: Layout) -> None:
    directory = release(layout, 1)
    decide(layout, directory)
    decision = decide(layout, directory, lambda directory: "https://hub/commit/1", "withheld now")
    assert (decision.decision, decision.pushed) == ("released", "https://hub/commit/1")
    assert len(decisions.history(layout)) == 2


def test_a_person_promotes_what_was_held(layout: Layout) -> None:
    champion, held = release(layout, 1), release(layout, 2, passed=False)
    decide(layout, champion)
    decide(layout, held)
    before = {path.name: path.read_bytes() for path in held.iterdir()}
    decision = promote(layout, held.name, " read by two ", lambda directory: "https://hub/2")
    assert decision.decision == "promoted"
    assert (decision.by, decision.because) == (getpass.getuser(), "read by two")
    assert (decision.champion, decision.pushed) == (champion.name, "https://hub/2")
    assert store.read_pointer(layout.releases) == held.name
    assert decisions.history(layout)[-1] == decision
    assert promotion.newest_held(layout) is None
    assert {path.name: path.read_bytes() for path in held.iterdir()} == before
    # The next weekly run on the same model leaves the decision of the person alone.
    assert decide(layout, held) == decision.model_copy(update={"pushed": "https://hub/2"})
    assert store.read_pointer(layout.releases) == held.name


def test_a_user_whom_nobody_named_is_recorded_by_number(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 1000670000)  # which no file of users has
    held = release(layout, 1, passed=False)
    decide(layout, held)
    assert promote(layout, held.name, "read by two").by == "1000670000"


def test_what_cannot_be_promoted(layout: Layout) -> None:
    with pytest.raises(PromotionError, match="there is none"):
        promote(layout, "20260101T000000Z-00000000", "because")
    first = release(layout, 1)
    decide(layout, first)
    with pytest.raises(PromotionError, match=f"there are: {first.name}"):
        promote(layout, "20260101T000000Z-00000000", "because")
    with pytest.raises(PromotionError, match="is released already"):
        promote(layout, first.name, "because")
    with pytest.raises(PromotionError, match="needs a reason"):
        promote(layout, release(layout, 2).name, " ")
    assert len(decisions.history(layout)) == 1


def test_the_last_held_release_is_not_pruned(layout: Layout) -> None:
    held, *later = [release(layout, week, passed=week != 1) for week in range(1, 5)]
    for directory in (held, *later):
        decide(layout, directory)
    store.prune(layout.releases, 1, [promotion.newest_held(layout)])
    assert store.versions(layout.releases) == [held.name, later[-1].name]


def test_a_broken_record_of_a_decision_is_named(layout: Layout) -> None:
    decide(layout, release(layout, 1))
    [path] = layout.decisions.iterdir()
    record = json.loads(path.read_text())
    assert Decision.model_validate(record).version == record["version"]
    path.write_text("{")
    with pytest.raises(DecisionError, match=path.name):
        decide(layout, release(layout, 2))


def test_a_damaged_release_is_not_promoted_and_the_remedy_is_its_own(layout: Layout) -> None:
    held = release(layout, 1, passed=False)
    decide(layout, held)
    (held / METRICS_FILE).write_text("{}")
    with pytest.raises(PromotionError, match=r"does not match.*materialise hf_release again"):
        promote(layout, held.name, "read")
    assert store.read_pointer(layout.releases) is None
