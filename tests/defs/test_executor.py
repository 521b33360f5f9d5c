import dagster as dg
from dead_runs import STARTED, begun, status

from cxr_assets.definitions import definitions
from cxr_assets.defs.executor import fail_dead_runs
from cxr_assets.liveness import Lock


def test_a_run_that_may_be_alive_is_left_alone(instance):
    held, place = begun(instance)
    place.unlink()
    lock_of_held = Lock(place, {})
    without, place = begun(instance)
    place.unlink()
    finished, place = begun(instance, dg.DagsterRunStatus.SUCCESS)
    (place.parent / "of-a-run-that-was-deleted").write_text("{}")
    assert fail_dead_runs(instance) == []
    assert status(instance, held) is status(instance, without) is STARTED
    assert status(instance, finished) is dg.DagsterRunStatus.SUCCESS
    assert [path.name for path in place.parent.iterdir()] == [held.run_id]
    lock_of_held.release()


def test_a_dead_run_that_was_being_canceled_is_canceled(instance):
    run, _ = begun(instance, dg.DagsterRunStatus.CANCELING)
    assert fail_dead_runs(instance) == [run.run_id]
    assert fail_dead_runs(instance) == []
    assert status(instance, run) is dg.DagsterRunStatus.CANCELED


@dg.op
def _nothing() -> None: ...


@dg.graph
def _nothings() -> None:
    _nothing()


def _job() -> dg.JobDefinition:
    return _nothings.to_job(executor_def=definitions.executor)


def test_without_a_daemon_the_next_run_marks_a_killed_run_as_failed(instance):
    run, _ = begun(instance)
    assert dg.execute_job(dg.reconstructable(_job), instance=instance).success
    assert status(instance, run) is dg.DagsterRunStatus.FAILURE
