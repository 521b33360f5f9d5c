"""One message for each failed run, by the code of Dagster's daemon in this process."""

import logging
from datetime import UTC, datetime, timedelta

import dagster as dg
import receivers
from daemon import loaded
from dagster._core.test_utils import freeze_time, load_remote_repo
from dagster._daemon.sensor import execute_sensor_iteration

from cxr_assets.definitions import definitions
from cxr_assets.defs import notifying, sensors
from cxr_assets.settings import Settings


def test_each_failed_run_is_one_message_however_often_the_daemon_looks(
    instance, tmp_path, monkeypatch
):
    start = datetime.now(UTC)
    minutes = iter(range(100))

    def look() -> list[str]:
        """The messages so far."""
        with freeze_time(start + timedelta(minutes=next(minutes))):
            for error in execute_sensor_iteration(context, logging.getLogger(__name__), None, None):
                assert error is None
        return [one["message"].splitlines()[0] for one in taken]

    def fail() -> str:
        with freeze_time(start + timedelta(minutes=next(minutes))):
            origin = repository.get_full_job("retrain").get_remote_origin()
            run = instance.create_run_for_job(
                definitions.resolve_job_def("retrain"), remote_job_origin=origin
            )
            instance.report_run_failed(run, "killed")
        return f"Run {run.run_id[:8]} of retrain failed."

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
        second = fail()
        assert look() == [first, second]
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE] * 3
