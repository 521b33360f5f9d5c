from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
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
