"""One message for each failed run, by the code of Dagster's daemon in this process."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import receivers
from daemon import loaded
from dagster._core.test_utils import freeze_time, load_remote_repo
from dagster._daemon.sensor import execute_sensor_iteration

from cxr_assets.definitions import definitions
from cxr_assets.defs import notifying, sensors
from cxr_assets.settings import Settings


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An empty Dagster instance that launches killed runs again."""
    retrying = {"run_retries": {"enabled": True}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=retrying) as instance:
        yield instance


def test_each_failed_run_is_one_message_however_often_the_daemon_looks(
    instance, tmp_path, monkeypatch
):
    start = datetime.now(UTC)
    minutes = iter(range(100))

    def look() -> list[tuple[str, str]]:
        """Title and first line of the messages so far."""
        with freeze_time(start + timedelta(minutes=next(minutes))):
            for error in execute_sensor_iteration(context, logging.getLogger(__name__), None, None):
                assert error is None
        return [(one["title"], one["message"].splitlines()[0]) for one in taken]

    def fail(retries: int = 1) -> tuple[str, str]:
        with freeze_time(start + timedelta(minutes=next(minutes))):
            origin = repository.get_full_job("retrain").get_remote_origin()
            run = instance.create_run_for_job(
                definitions.resolve_job_def("retrain"), remote_job_origin=origin,
                tags={"dagster/max_retries": str(retries)},
            )  # fmt: skip
            instance.report_run_failed(run, "killed")
        title = "retrain failed and is launched again" if retries else "retrain failed"
        return title, f"Run {run.run_id[:8]} of retrain failed."

    with receivers.webhook() as (url, taken), loaded(instance) as context:
        settings = Settings(data_root=tmp_path, notify_urls=url)
        for module in (notifying, sensors):
            monkeypatch.setattr(module, "settings", settings)
        repository = load_remote_repo(context, "__repository__")
        fail()
        instance.start_sensor(repository.get_sensor("notify_failed_run"))
        assert look() == [], "it failed before anybody was to be notified"
        first = fail()
        assert look() == look() == [first]
        second = fail(retries=0)
        assert look() == [first, second]
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE] * 3
