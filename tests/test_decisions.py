from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from cxr_assets import decisions
from cxr_assets.decisions import Decision, DecisionError
from cxr_assets.layout import Layout
from cxr_serving.model.report import Clause

OLD, NEW = "20260101T000000Z-00000000", "20260108T000000Z-11111111"
NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)


def decision(version: str, at: datetime = NOON, **changes: object) -> Decision:
    given = {
        "champion": None, "decision": "released", "clauses": [], "by": None, "because": None,
        "pushed": None,
    }  # fmt: skip
    return Decision.model_validate({"version": version, "decided_at": at, **given, **changes})


def clause(name: str, passed: bool) -> Clause:
    return Clause(name=name, figure=0.2, interval=None, limit=0.1, passed=passed, text="It is.")


def test_the_history_is_in_the_order_of_the_decisions(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    east = datetime(2026, 1, 9, 13, tzinfo=timezone(timedelta(hours=9)))  # 04:00 in UTC
    decisions.record(layout, decision(NEW, east))
    decisions.record(layout, decision(OLD))
    decisions.record(layout, decision(OLD, NOON + timedelta(days=1), decision="held"))
    found = decisions.history(layout)
    assert [one.version for one in found] == [NEW, OLD, OLD]
    assert decisions.newest(found, OLD) == found[-1]
    assert decisions.newest(found, "another") is None


def test_a_decision_by_a_clock_that_was_set_back_comes_after_the_last(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    ahead = NOON + timedelta(days=400)
    decisions.record(layout, decision(OLD, ahead))
    made = decisions.record(layout, decision(NEW))
    assert ahead < made.decided_at < ahead + timedelta(seconds=1)
    assert decisions.last_released(decisions.history(layout)) == NEW


def test_the_same_decision_is_recorded_once_and_another_one_beside_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    first = decisions.record(layout, decision(OLD))
    assert decisions.record(layout, decision(OLD, NOON + timedelta(days=7))) == first
    decisions.record(layout, decision(OLD, NOON + timedelta(days=8), decision="held"))
    assert [one.decision for one in decisions.history(layout)] == ["released", "held"]


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    decisions.record(layout, decision(OLD))
    [path] = layout.decisions.iterdir()
    path.write_text(path.read_text()[:-9])
    with pytest.raises(DecisionError, match=rf"{path.name} cannot be read .*backup"):
        decisions.history(layout)


def test_the_summary_names_what_failed_and_who_decided() -> None:
    clauses = [clause("calibrated", False), clause("beats_probe", True)]
    held = decision(OLD, decision="held", clauses=clauses, because="images are synthetic")
    assert held.summary == "held: calibrated, images are synthetic"
    promoted = decision(OLD, decision="promoted", clauses=clauses, by="ada", because="200 read")
    assert promoted.summary == "promoted by ada: 200 read"
    assert decision(OLD).summary == "released"


def test_what_was_released_last_is_no_held_version(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert decisions.last_released(decisions.history(layout)) is None
    decisions.record(layout, decision(OLD, decision="promoted", by="me", because="read"))
    decisions.record(layout, decision(NEW, NOON + timedelta(days=1), decision="held"))
    assert decisions.last_released(decisions.history(layout)) == OLD


def test_a_folder_that_cannot_be_listed_or_written_is_not_taken_for_an_empty_one(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path)
    layout.decisions.write_text("a file where the folder was")
    with pytest.raises(DecisionError, match="decisions cannot be read"):
        decisions.history(layout)


def test_a_decision_that_cannot_be_written_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decisions, "write_file", full)
    with pytest.raises(DecisionError, match=r"No space left.*nothing is decided: make the folder"):
        decisions.record(Layout(tmp_path), decision(OLD))
