import time
from pathlib import Path

import dagster as dg
import forking
from dead_runs import STARTED, begun, lock, status

from cxr_assets.definitions import definitions
from cxr_assets.defs import sensors
from cxr_assets.settings import Settings


def test_a_killed_retrain_is_marked_as_failed_and_a_live_one_is_not(
    new_workplace, monkeypatch, tmp_path
):
    workplace = new_workplace()
    endless = [*workplace.overrides, "trainer.max_epochs=5000", "trainer.patience=5000"]
    settings = Settings(data_root=workplace.root, mlflow_uri=None)
    monkeypatch.setattr(sensors, "settings", settings)
    process = forking.start(
        ["dagster", "job", "execute", "-j", "retrain", "-m", "cxr_assets.definitions"],
        Path(__file__).parents[2],
        {**workplace.environment, "CXR_OVERRIDES": " ".join(endless)},
        tmp_path,
    )
    try:
        deadline = time.monotonic() + 600
        while not any((workplace.root / "work").glob("*/last.ckpt")):
            assert process.exitcode is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with dg.DagsterInstance.from_config(str(workplace.home)) as instance:
            context = dg.build_sensor_context(instance)
            skip = sensors.killed_runs(context)
            assert isinstance(skip, dg.SkipReason)
            assert skip.skip_message == "no killed runs"
            (run,) = instance.get_runs()
            assert run.status is STARTED
            assert {each.info.status for each in workplace.mlflow_runs()} == {"RUNNING"}

            process.kill()
            process.join()
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
        process.join()


def test_without_mlflow_killed_runs_are_marked_as_failed_too(instance, tmp_path, monkeypatch):
    run, _ = begun(instance)
    settings = Settings(data_root=tmp_path, mlflow_uri="http://127.0.0.1:9")
    monkeypatch.setattr(sensors, "settings", settings)
    running = settings.layout.mlflow_running
    running.mkdir(parents=True)
    (running / "run").write_text('{"uri": "http://127.0.0.1:9"}')
    skip = sensors.killed_runs(dg.build_sensor_context(instance))
    assert isinstance(skip, dg.SkipReason)
    assert "MLflow cannot be reached" in str(skip.skip_message)
    assert status(instance, run) is dg.DagsterRunStatus.FAILURE
    assert (running / "run").exists(), "for the next tick"


def test_the_sensor_is_on():
    sensor = definitions.resolve_sensor_def("killed_runs")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds is not None
    assert sensor.minimum_interval_seconds <= 60
