"""The path of the UI: a live webserver and daemon, and runs launched through its GraphQL."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import torch
from filelock import FileLock
from net import free_port, wait_for_server

REPOSITORY = Path(__file__).parents[2]
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""


class UI:
    """A client of the webserver's GraphQL."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        response = self._client.post("/graphql", json={"query": query, "variables": variables})
        body = response.json()
        assert "errors" not in body, body
        return body["data"]

    def launch(self, job: str, assets: list[str] | None = None, config: dict | None = None) -> str:
        selector: dict[str, Any] = {
            "repositoryLocationName": "cxr",
            "repositoryName": "__repository__",
            "jobName": job,
        }
        if assets is not None:
            selector["assetSelection"] = [{"path": [name]} for name in assets]
        result = self.query(
            LAUNCH,
            params={
                "selector": selector,
                "mode": "default",
                "runConfigData": json.dumps(config or {}),
            },
        )["launchRun"]
        assert result["__typename"] == "LaunchRunSuccess", result
        return result["run"]["runId"]

    def wait(self, run_id: str, seconds: float = 200) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run = self.query(
                "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }",
                id=run_id,
            )["runOrError"]
            if run["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
                return run["status"]
            time.sleep(0.5)
        raise TimeoutError(f"run {run_id} is still {run['status']} after {seconds} s")


@pytest.fixture(scope="module")
def ui(trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UI]:
    """``make dev`` on the workplace that the command line has trained in."""
    port = free_port()
    log = tmp_path_factory.mktemp("ui") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["dagster", "dev", "-w", "workspace.yaml", "-p", str(port)],
            cwd=REPOSITORY,
            env=trained.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell that runs the suite in the background has it ignore the signal that stops it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        try:
            wait_for_server(process, f"http://127.0.0.1:{port}/server_info", log)
            yield UI(f"http://127.0.0.1:{port}")
        finally:
            # Dagster's own shutdown is not what is tested here: it gets a while, then an end.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_runs_of_the_command_line_show_in_the_ui(ui, trained):
    runs = ui.query("{ runsOrError { ... on Runs { results { runId jobName status } } } }")
    shown = {run["runId"] for run in runs["runsOrError"]["results"]}
    assert {run.run_id for run in trained.runs()} <= shown
    assert shown


def test_the_weekly_schedule_is_on(ui):
    schedule = ui.query(
        """query Schedule($selector: ScheduleSelector!) {
          scheduleOrError(scheduleSelector: $selector) {
            ... on Schedule { cronSchedule scheduleState { status } }
          }
        }""",
        selector={
            "repositoryLocationName": "cxr",
            "repositoryName": "__repository__",
            "scheduleName": "weekly_retrain",
        },
    )["scheduleOrError"]
    assert schedule["cronSchedule"] == "0 3 * * 0"
    assert schedule["scheduleState"]["status"] == "RUNNING"


def test_the_job_runs_from_the_ui_and_ends_finished_in_mlflow(ui, trained):
    run_id = ui.launch("retrain")
    assert ui.wait(run_id) == "SUCCESS"
    assert trained.mlflow_parent(run_id).info.status == "FINISHED"


def test_one_asset_runs_from_the_ui_with_settings_of_the_launchpad(ui, trained):
    overrides = " ".join([*trained.overrides, "data.seed=11"])
    run_id = ui.launch(
        "__ASSET_JOB",
        ["raw_kaggle", "processed_dataset"],
        {"resources": {"experiment": {"config": {"overrides": overrides}}}},
    )
    assert ui.wait(run_id) == "SUCCESS"
    assert trained.mlflow_parent(run_id).info.status == "FINISHED"
    record = json.loads((trained.layout.processed / "dataset.json").read_text())
    assert record["seed"] == 11


def test_a_failure_in_the_ui_is_failed_in_mlflow(ui, trained, tmp_path):
    overrides = f"data=folder data.folder={tmp_path}"
    run_id = ui.launch(
        "__ASSET_JOB",
        ["raw_kaggle"],
        {"resources": {"experiment": {"config": {"overrides": overrides}}}},
    )
    assert ui.wait(run_id) == "FAILURE"
    assert trained.mlflow_parent(run_id).info.status == "FAILED"
    with dg.DagsterInstance.from_config(str(trained.home)) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.FAILURE


def test_terminated_in_the_ui_it_is_killed_in_mlflow(ui, trained):
    overrides = " ".join(
        [*trained.overrides, "seed=12", "trainer.max_epochs=5000", "trainer.patience=5000"]
    )
    run_id = ui.launch(
        "retrain", config={"resources": {"experiment": {"config": {"overrides": overrides}}}}
    )
    deadline = time.monotonic() + 120
    while not any(
        run.info.status == "RUNNING" and "val_macro_f1" in run.data.metrics
        for run in trained.mlflow_runs()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    result = ui.query(
        "mutation Stop($id: String!) { terminateRun(runId: $id) { __typename } }", id=run_id
    )
    assert result["terminateRun"]["__typename"] == "TerminateRunSuccess"
    assert ui.wait(run_id, 120) == "CANCELED"
    assert trained.mlflow_parent(run_id).info.status == "KILLED"
    children = [run for run in trained.mlflow_runs() if run.info.status == "RUNNING"]
    assert not children

    (work,) = [path for path in (trained.root / "work").iterdir() if path.is_dir()]
    loops = torch.load(work / "last.ckpt", weights_only=True)["loops"]["fit_loop"]
    epochs = loops["epoch_progress"]["current"]
    assert epochs["processed"] == epochs["started"] - 1, "stopped in the middle of an epoch"
    FileLock(work.with_suffix(".lock")).acquire(timeout=30).lock.release()
    # The only slot for runs is free again.
    assert ui.wait(ui.launch("__ASSET_JOB", ["raw_kaggle"])) == "SUCCESS"
