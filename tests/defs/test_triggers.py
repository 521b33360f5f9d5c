"""Sensors that start a retraining: once for each event, and none while one is unfinished."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from cxr_assets import drift
from cxr_assets.definitions import definitions
from cxr_assets.defs import triggers
from cxr_assets.radiographs import arrivals
from cxr_assets.settings import Settings


@pytest.fixture
def instance(tmp_path, monkeypatch) -> Iterator[dg.DagsterInstance]:
    """An empty Dagster instance, in memory; the sources are a folder."""
    settings = Settings(
        data_root=tmp_path,
        experiment="scratch",
        overrides=f"data.folder={tmp_path}",
        service_url="http://serving:8000",
    )
    monkeypatch.setattr(triggers, "settings", settings)
    monkeypatch.setattr(arrivals, "SETTLED", timedelta(0))
    monkeypatch.setattr(drift, "LASTING", timedelta(0))
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def tick(instance: dg.DagsterInstance, name: str, cursor: str | None) -> SensorExecutionData:
    context = dg.build_sensor_context(
        instance, cursor=cursor, repository_def=definitions.get_repository_def()
    )
    return definitions.resolve_sensor_def(name).evaluate_tick(context)


def new_images(tmp_path) -> None:
    (tmp_path / f"{len(list(tmp_path.iterdir()))}.jpeg").touch()


def test_new_images_start_one_retraining(instance, tmp_path):
    name, cursor, keys = "retrain_on_new_images", None, []
    for step in range(8):
        if step in (2, 5):
            new_images(tmp_path)
        data = tick(instance, name, cursor)
        cursor = data.cursor
        keys += [(step, request.run_key) for request in data.run_requests]
    assert [step for step, _ in keys] == [3, 6]
    assert len({key for _, key in keys}) == 2


def drifting(monkeypatch) -> None:
    monkeypatch.setattr(drift, "measured", lambda url: {"intensity": 0.4})


def test_a_drift_starts_one_retraining(instance, monkeypatch):
    drifting(monkeypatch)
    cursor, started = None, []
    for step in range(5):
        data = tick(instance, "retrain_on_drift", cursor)
        cursor = data.cursor
        started += [step] * len(data.run_requests)
    assert started == [1]


@pytest.mark.parametrize("name", ["retrain_on_new_images", "retrain_on_drift"])
def test_it_waits_while_another_retraining_is_unfinished(instance, tmp_path, monkeypatch, name):
    drifting(monkeypatch)
    cursor = tick(instance, name, None).cursor
    new_images(tmp_path)
    cursor = tick(instance, name, cursor).cursor if "images" in name else cursor
    run = instance.create_run_for_job(
        definitions.resolve_job_def("retrain"), status=dg.DagsterRunStatus.STARTED
    )
    for _ in range(2):
        waiting = tick(instance, name, cursor)
        assert f"but run {run.run_id} of retrain is unfinished" in (waiting.skip_message or "")
        assert waiting.cursor == cursor
    instance.report_run_canceled(run)
    assert len(tick(instance, name, cursor).run_requests) == 1


def test_what_is_out_of_reach_starts_nothing(instance, monkeypatch, tmp_path):
    settings = triggers.settings.model_copy(
        update={"overrides": f"data.folder={tmp_path}/gone", "service_url": None}
    )
    monkeypatch.setattr(triggers, "settings", settings)
    for name, said in (
        ("retrain_on_new_images", "out of reach: No such file or directory"),
        ("retrain_on_drift", "CXR_SERVICE_URL is not set"),
    ):
        data = tick(instance, name, "")
        assert said in (data.skip_message or "")
        assert not data.run_requests


def test_they_are_off_until_somebody_turns_them_on():
    for sensor in triggers.triggers:
        found = definitions.resolve_sensor_def(sensor.name)
        assert found.default_status is dg.DefaultSensorStatus.STOPPED
