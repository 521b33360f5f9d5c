import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import islice, pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from daemon import loaded
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._utils.schedules import schedule_execution_time_iterator
from dead_runs import begun, status

from cxr_assets.definitions import definitions

SUNDAY = datetime(2026, 1, 4, 3, tzinfo=UTC)


def tick(instance: dg.DagsterInstance) -> ScheduleExecutionData:
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=SUNDAY,
        repository_def=definitions.get_repository_def(),
    )
    return definitions.resolve_schedule_def("weekly_retrain").evaluate_tick(context)


def test_a_tick_requests_one_run_of_the_whole_graph(instance):
    (request,) = tick(instance).run_requests
    (again,) = tick(instance).run_requests
    assert request.run_key == again.run_key, "the same tick twice must be the same run"


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTED", "CANCELING"])
def test_a_tick_skips_while_a_retrain_is_unfinished(status, instance):
    run = instance.create_run_for_job(
        definitions.resolve_job_def("retrain"), status=dg.DagsterRunStatus[status]
    )
    data = tick(instance)
    assert data.run_requests == []
    assert run.run_id in data.skip_message
    instance.report_run_canceled(run)
    assert len(tick(instance).run_requests) == 1


def test_an_unfinished_run_of_another_job_does_not_matter(instance):
    instance.create_run_for_job(
        definitions.resolve_implicit_global_asset_job_def(),
        status=dg.DagsterRunStatus.STARTED,
    )
    assert len(tick(instance).run_requests) == 1


def test_a_killed_retrain_does_not_make_a_tick_skip(instance):
    run, _ = begun(instance)
    assert len(tick(instance).run_requests) == 1
    assert status(instance, run) is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_clock_changes_neither_repeat_nor_skip_a_week(zone):
    """Both zones change their clocks on a Sunday, at or just before three o'clock."""
    schedule = definitions.resolve_schedule_def("weekly_retrain")
    ticks = list(
        islice(
            schedule_execution_time_iterator(SUNDAY.timestamp(), str(schedule.cron_schedule), zone),
            20 * 52,
        )
    )
    local = [tick.astimezone(ZoneInfo(zone)) for tick in ticks]
    assert {(tick.isoweekday(), tick.hour, tick.minute) for tick in local} == {(7, 3, 0)}
    days = [tick.date() for tick in local]
    assert {after - before for before, after in pairwise(days)} == {timedelta(weeks=1)}
    hours = {(after.timestamp() - before.timestamp()) / 3600 for before, after in pairwise(ticks)}
    assert hours == {167, 168, 169}


@dataclass
class Scheduler:
    """Dagster's own scheduler, in this process; nothing takes runs from the queue."""

    instance: dg.DagsterInstance
    context: WorkspaceProcessContext

    def runs(self, now: datetime) -> list[dg.DagsterRun]:
        """All runs, newest first, after the daemon has started, looked at the clock and ended."""
        from dagster._scheduler.scheduler import launch_scheduled_runs

        for error in launch_scheduled_runs(self.context, logging.getLogger(__name__), now, {}):
            assert error is None
        return list(self.instance.get_runs())


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    import_module("dagster._daemon")  # first, as it and the scheduler import each other
    queue = {
        "run_coordinator": {
            "module": "dagster._core.run_coordinator",
            "class": "QueuedRunCoordinator",
        }
    }
    with (
        dg.DagsterInstance.local_temp(str(tmp_path), overrides=queue) as instance,
        loaded(instance) as context,
    ):
        yield Scheduler(instance, context)


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Berlin", datetime(2026, 3, 29)),
        ("Europe/Berlin", datetime(2026, 10, 25)),
        ("America/New_York", datetime(2026, 3, 8)),
        ("America/New_York", datetime(2026, 11, 1)),
    ],
)
def test_on_a_sunday_with_a_clock_change_one_retraining_starts_at_three(
    zone, day, monkeypatch, request
):
    schedule = definitions.resolve_schedule_def("weekly_retrain")
    monkeypatch.setattr(schedule, "_execution_timezone", zone)
    scheduler = request.getfixturevalue("scheduler")
    midnight = day.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    started = {}
    for hours in range(-6, 24):
        now = midnight + timedelta(hours=hours, minutes=1)
        for run in scheduler.runs(now):
            started.setdefault(run.run_id, now.astimezone(ZoneInfo(zone)))
            if not run.is_finished:
                scheduler.instance.report_run_canceled(run)
    (moment,) = started.values()
    assert (moment.day, moment.hour, moment.minute) == (day.day, 3, 1)


def test_a_daemon_that_was_down_starts_the_missed_retraining_once(scheduler):
    def runs(weeks: float) -> list[str]:
        return [run.run_id for run in scheduler.runs(SUNDAY + timedelta(weeks=weeks))]

    assert runs(-0.5) == []
    (first,) = runs(3.4)
    assert runs(3.4) == runs(3.5) == [first], "the daemon restarts"
    assert runs(2.9) == runs(3.1) == [first], "the clock is set back"
    assert runs(4.1) == [first], "the first one is unfinished"
    run = scheduler.instance.get_run_by_id(first)
    assert run is not None
    scheduler.instance.report_run_canceled(run)
    assert len(runs(4.2)) == 1, "what was skipped is skipped"
    assert len(runs(5.1)) == 2
