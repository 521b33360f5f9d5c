"""Runs whose process is killed: found out by the sensor, the schedule and the next run."""

import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from cxr_assets.definitions import definitions
from cxr_assets.defs import sensors
from cxr_assets.defs.executor import fail_dead_runs
from cxr_assets.liveness import Lock
from cxr_assets.settings import Settings

STARTED = dg.DagsterRunStatus.STARTED


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def lock(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Path:
    return Path(instance.storage_directory()) / "running" / run.run_id


def begun(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus = STARTED
) -> tuple[dg.DagsterRun, Path]:
    """A run on record, and where its lock is; nobody holds it."""
    run = instance.create_run_for_job(definitions.resolve_job_def("retrain"), status=status)
    place = lock(instance, run)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("{}")
    return run, place


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_killed_retrain_is_found_out_and_a_live_one_is_not(new_workplace, monkeypatch):
    workplace = new_workplace()
    endless = [*workplace.overrides, "trainer.max_epochs=5000", "trainer.patience=5000"]
    settings = Settings(data_root=workplace.root, mlflow_uri=None)
    monkeypatch.setattr(sensors, "settings", settings)
    process = subprocess.Popen(
        ["dagster", "job", "execute", "-j", "retrain", "-m", "cxr_assets.definitions"],
        cwd=Path(__file__).parents[2],
        env={**workplace.environment, "CXR_OVERRIDES": " ".join(endless)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 240
        while not any((workplace.root / "work").glob("*/last.ckpt")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with dg.DagsterInstance.from_config(str(workplace.home)) as instance:
            context = dg.build_sensor_context(instance)
            skip = sensors.killed_runs(context)
            assert isinstance(skip, dg.SkipReason)
            assert skip.skip_message == "none was killed"
            (run,) = instance.get_runs()
            assert run.status is STARTED
            assert {each.info.status for each in workplace.mlflow_runs()} == {"RUNNING"}

            process.send_signal(signal.SIGKILL)
            process.wait()
            assert status(instance, run) is STARTED
            skip = sensors.killed_runs(context)
            assert isinstance(skip, dg.SkipReason)
            assert run.run_id in str(skip.skip_message)
            assert status(instance, run) is dg.DagsterRunStatus.FAILURE
            assert not lock(instance, run).exists()
        ended = {each.info.run_name: each.info.status for each in workplace.mlflow_runs()}
        assert ended == {"retrain": "KILLED", "convnext_model": "KILLED"}
    finally:
        process.kill()
        process.wait()


def test_what_is_not_known_to_be_dead_is_left_alone(instance):
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


def test_a_dead_run_that_was_to_be_canceled_is_canceled(instance):
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


def test_the_next_run_finds_it_out_without_a_daemon(instance):
    run, _ = begun(instance)
    assert dg.execute_job(dg.reconstructable(_job), instance=instance).success
    assert status(instance, run) is dg.DagsterRunStatus.FAILURE


def test_the_schedule_does_not_skip_for_it(instance):
    run, _ = begun(instance)
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime(2026, 1, 4, 3, tzinfo=UTC),
        repository_def=definitions.get_repository_def(),
    )
    data = definitions.resolve_schedule_def("weekly_retrain").evaluate_tick(context)
    assert len(data.run_requests) == 1
    assert status(instance, run) is dg.DagsterRunStatus.FAILURE


def test_mlflow_out_of_reach_does_not_hold_dagster_up(instance, tmp_path, monkeypatch):
    run, _ = begun(instance)
    settings = Settings(data_root=tmp_path, mlflow_uri="http://127.0.0.1:9")
    monkeypatch.setattr(sensors, "settings", settings)
    running = settings.layout.mlflow_running
    running.mkdir(parents=True)
    (running / "run").write_text('{"uri": "http://127.0.0.1:9"}')
    skip = sensors.killed_runs(dg.build_sensor_context(instance))
    assert isinstance(skip, dg.SkipReason)
    assert "MLflow is out of reach" in str(skip.skip_message)
    assert status(instance, run) is dg.DagsterRunStatus.FAILURE
    assert (running / "run").exists(), "for the next tick"


def test_the_sensor_is_on():
    sensor = definitions.resolve_sensor_def("killed_runs")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds is not None
    assert sensor.minimum_interval_seconds <= 60
