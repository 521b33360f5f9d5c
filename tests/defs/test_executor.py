import dagster as dg
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dead_runs import STARTED, begun, status
from mlflow.tracking import MlflowClient

from cxr_assets.definitions import definitions
from cxr_assets.defs.executor import TrackedExecutor, fail_dead_runs
from cxr_assets.defs.resources import DataRoot, Experiment, mlflow
from cxr_assets.layout import Layout
from cxr_assets.liveness import Lock
from cxr_assets.store import EXPERIMENT


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


@dg.op(required_resource_keys={"mlflow"})
def _measured(context: dg.OpExecutionContext) -> None:
    context.resources.mlflow.log_metrics({"accuracy": 0.5})


@dg.graph
def _measurement() -> None:
    _measured()


@dg.executor(
    config_schema=dg.multiprocess_executor.config_schema,
    requirements=multiple_process_executor_requirements(),
)
def _processes(context: dg.InitExecutorContext) -> dg.Executor:
    return TrackedExecutor(dg.multiprocess_executor.executor_creation_fn(context))


def _elsewhere() -> dg.JobDefinition:
    resources = {"experiment": Experiment(), "data_root": DataRoot(), "mlflow": mlflow}
    return _measurement.to_job(resource_defs=resources, executor_def=_processes)


def test_a_step_in_a_process_of_its_own_adds_to_the_mlflow_run(instance, tmp_path):
    layout = Layout(tmp_path / "data")
    config = {"resources": {"data_root": {"config": {"path": str(layout.root)}}}}
    assert dg.execute_job(dg.reconstructable(_elsewhere), instance, config).success
    client = MlflowClient(f"sqlite:///{layout.mlflow_database}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.data.metrics, run.info.status) == ({"accuracy": 0.5}, "FINISHED")
