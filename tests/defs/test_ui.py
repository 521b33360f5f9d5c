"""The UI: a live webserver and daemon, with runs launched through GraphQL."""

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
from dagster_graphql import DagsterGraphQLClient
from filelock import FileLock
from net import free_port, wait_for_server

REPOSITORY = Path(__file__).parents[2]
# Runs are forked from a process that has imported the libraries; the first one waits for it.
FORKED = REPOSITORY / "benchmarks" / "unattended" / "forked"
PATIENT = {"DAGSTER_GRPC_TIMEOUT_SECONDS": "600"}


class UI:
    """A client of the webserver."""

    def __init__(self, port: int) -> None:
        self._dagster = DagsterGraphQLClient("127.0.0.1", port_number=port)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        sent = {"query": query, "variables": variables}
        body = self._http.post("/graphql", json=sent).json()
        assert "errors" not in body, body
        return body["data"]

    def launch(self, job: str, assets: list[str] | None = None, config: dict | None = None) -> str:
        return self._dagster.submit_job_execution(
            job,
            repository_location_name="cxr",
            repository_name="__repository__",
            run_config=config or {},
            asset_selection=assets,
        )

    def terminate(self, run_id: str) -> None:
        self._dagster.terminate_run(run_id)

    def status(self, run_id: str) -> str:
        return self._dagster.get_run_status(run_id).value

    def wait(self, run_id: str, seconds: float = 200) -> str:
        deadline = time.monotonic() + seconds
        while (status := self.status(run_id)) not in ("SUCCESS", "FAILURE", "CANCELED"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"run {run_id} is still {status} after {seconds} s")
            time.sleep(0.5)
        return status


def settings(*overrides: str) -> dict[str, Any]:
    """Run config, as entered in the launchpad."""
    return {"resources": {"experiment": {"config": {"overrides": " ".join(overrides)}}}}


@pytest.fixture(scope="module")
def workplace(new_workplace):
    """A workplace with an earlier run of the command line."""
    workplace = new_workplace()
    finished = workplace.materialize("raw_kaggle")
    assert finished.returncode == 0, finished.stderr[-3000:]
    return workplace


@pytest.fixture(scope="module")
def ui(workplace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UI]:
    """``make dev``."""
    port = free_port()
    log = tmp_path_factory.mktemp("ui") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["dagster", "dev", "-w", "workspace.yaml", "-p", str(port)],
            cwd=REPOSITORY,
            env={**workplace.environment, "PYTHONPATH": str(FORKED), **PATIENT},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell that runs the suite in the background has it ignore the signal that stops it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        try:
            wait_for_server(process, f"http://127.0.0.1:{port}/server_info", log)
            yield UI(port)
        finally:
            # Dagster's own shutdown is not what is tested here: it gets a while, then an end.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_runs_of_the_command_line_show_in_the_ui(ui, workplace):
    runs = ui.query("{ runsOrError { ... on Runs { results { runId jobName status } } } }")
    shown = {run["runId"] for run in runs["runsOrError"]["results"]}
    (run,) = workplace.runs()
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.asset_selection == {dg.AssetKey("raw_kaggle")}
    assert shown == {run.run_id}


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


def test_the_job_runs_from_the_ui_and_ends_finished_in_mlflow(ui, workplace):
    run_id = ui.launch("retrain")
    assert ui.wait(run_id) == "SUCCESS"
    assert workplace.mlflow_parent(run_id).info.status == "FINISHED"


def test_one_asset_runs_from_the_ui_with_settings_of_the_launchpad(ui, workplace):
    run_id = ui.launch(
        "__ASSET_JOB",
        ["raw_kaggle", "processed_dataset"],
        settings(*workplace.overrides, "data.seed=11"),
    )
    assert ui.wait(run_id) == "SUCCESS"
    assert workplace.mlflow_parent(run_id).info.status == "FINISHED"
    record = json.loads((workplace.layout.processed / "dataset.json").read_text())
    assert record["seed"] == 11


@pytest.fixture(scope="module")
def stopped_and_next(ui, workplace, tmp_path_factory) -> tuple[str, str]:
    """A terminated training, and a run that was queued behind it and failed."""
    endless = [*workplace.overrides, "seed=12", "trainer.max_epochs=5000", "trainer.patience=5000"]
    stopped = ui.launch("retrain", config=settings(*endless))
    folder = tmp_path_factory.mktemp("no-images")
    waiting = ui.launch(
        "__ASSET_JOB", ["raw_kaggle"], settings("data=folder", f"data.folder={folder}")
    )
    deadline = time.monotonic() + 120
    while not any(
        run.info.status == "RUNNING" and "val_macro_f1" in run.data.metrics
        for run in workplace.mlflow_runs()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert ui.status(waiting) == "QUEUED", "there is one slot for runs"
    ui.terminate(stopped)
    assert ui.wait(stopped, 120) == "CANCELED"
    assert ui.wait(waiting) == "FAILURE"
    return stopped, waiting


def test_a_run_terminated_in_the_ui_is_killed_in_mlflow(stopped_and_next, workplace):
    stopped, _ = stopped_and_next
    assert workplace.mlflow_parent(stopped).info.status == "KILLED"
    children = [run for run in workplace.mlflow_runs() if run.info.status == "RUNNING"]
    assert not children

    (work,) = [path for path in (workplace.root / "work").iterdir() if path.is_dir()]
    loops = torch.load(work / "last.ckpt", weights_only=True)["loops"]["fit_loop"]
    epochs = loops["epoch_progress"]["current"]
    assert epochs["processed"] == epochs["started"] - 1, "stopped in the middle of an epoch"
    FileLock(work.with_suffix(".lock")).acquire(timeout=30).lock.release()


def test_a_run_that_fails_in_the_ui_is_failed_in_mlflow(stopped_and_next, workplace):
    _, failed = stopped_and_next
    assert workplace.mlflow_parent(failed).info.status == "FAILED"
    with dg.DagsterInstance.from_config(str(workplace.home)) as instance:
        run = instance.get_run_by_id(failed)
        (step,) = [
            entry.dagster_event.step_failure_data.error
            for entry in instance.all_logs(failed, dg.DagsterEventType.STEP_FAILURE)
        ]
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert "no-images" in step.to_string(), "the folder is named"
