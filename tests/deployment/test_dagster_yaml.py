import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.instance.config import dagster_instance_config
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
)
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.workspace.load import location_origins_from_yaml_paths

from cxr_assets.definitions import definitions

ROOT = Path(__file__).parents[2]
WEEK = 7 * 24 * 3600
CONFIGURATIONS = [ROOT / "dagster.yaml", ROOT / "deploy" / "dagster.yaml"]


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=["local", "deployed"])
def test_dagster_accepts_the_configuration(path: Path) -> None:
    accepted, _ = dagster_instance_config(str(path.parent))
    assert accepted["telemetry"] == {"enabled": False}
    assert accepted["concurrency"]["runs"]["max_concurrent_runs"] == 1


def test_a_run_waits_for_a_code_location_that_starts_again(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_concurrent_runs == 1
    assert queue.max_user_code_failure_retries * queue.user_code_failure_retry_delay >= 600
    assert load(CONFIGURATIONS[0])["run_queue"] == load(CONFIGURATIONS[1])["run_queue"]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=["local", "deployed"])
def test_the_age_of_the_assets_is_watched(path: Path) -> None:
    assert load(path)["freshness"] == {"enabled": True}


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=["local", "deployed"])
def test_a_dead_run_is_given_up_before_the_next_weekly_one(path: Path) -> None:
    monitoring = load(path)["run_monitoring"]
    assert monitoring["enabled"]
    assert 0 < monitoring["max_runtime_seconds"] < WEEK


def test_a_killed_run_is_launched_once_more_and_one_with_a_failed_step_is_not(
    tmp_path: Path,
) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    job = definitions.resolve_job_def("retrain")
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        for failure, again in (
            (None, "true"),
            (JobFailureData(None, RunFailureReason.STEP_FAILURE), "false"),
        ):
            run = instance.create_run_for_job(job)
            instance.report_run_failed(run, job_failure_data=failure)
            failed = instance.get_run_by_id(run.run_id)
            assert failed is not None
            assert failed.tags["dagster/will_retry"] == again


def test_both_configurations_differ_in_storage_only() -> None:
    local, deployed = map(load, CONFIGURATIONS)
    assert deployed.keys() - local.keys() == {"storage", "local_artifact_storage", "compute_logs"}
    assert {key: deployed[key] for key in local} == local


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=["local", "deployed"])
def test_every_setting_says_what_it_is_for(path: Path) -> None:
    lines = path.read_text().splitlines()
    above = {
        line.partition(":")[0]: before
        for before, line in pairwise(["", *lines])
        if re.match(r"\w+:", line)
    }
    assert above.keys() == load(path).keys()
    assert {key for key, before in above.items() if not before.startswith("# ")} == set()


def test_local_instance_lives_below_its_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    with DagsterInstance.from_config(str(home)) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.freshness_enabled
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 1
        logs = instance.compute_log_manager
        assert isinstance(logs, LocalComputeLogManager)
        path = Path(logs.get_captured_local_path(["run", "compute_logs", "step"], "out"))
        assert path.is_relative_to(home)
        assert Path(instance.storage_directory()).is_relative_to(home)


def test_local_workspace_loads_the_definitions() -> None:
    [origin] = location_origins_from_yaml_paths([str(ROOT / "workspace.yaml")])
    assert isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin)
    assert origin.location_name == "cxr"
    target = origin.loadable_target_origin
    project = (ROOT / "pyproject.toml").read_text()
    assert f'module_name = "{target.module_name}"' in project


def test_deployed_workspace_names_the_same_location(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_LOCATION_HOST", "code-location")
    [origin] = location_origins_from_yaml_paths([str(ROOT / "deploy" / "workspace.yaml")])
    assert isinstance(origin, GrpcServerCodeLocationOrigin)
    assert (origin.location_name, origin.host, origin.port) == ("cxr", "code-location", 4000)
