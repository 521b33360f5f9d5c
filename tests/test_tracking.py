"""What reaches MLflow, whatever happens to its store; with real stores."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.store.db import utils
from mlflow.tracking import MlflowClient

from cxr_assets import liveness, tracking, witness
from cxr_assets import store as stores
from cxr_assets.layout import Layout
from cxr_assets.store import EXPERIMENT
from cxr_assets.tracking import TrackingError

BEGIN = """
import os, signal, sys
from pathlib import Path
from cxr_assets import tracking
from cxr_assets.layout import Layout
tracking.open_store(None, Layout(Path(sys.argv[1])), print)
parent = tracking.start_run("sweep")
with tracking.training_run("training", {"seed": 1}):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a store, which takes MLflow seconds to make."""
    root = tmp_path_factory.mktemp("made") / "data"
    tracking.open_store(None, Layout(root), print)
    tracking.close("FINISHED")
    return root


@pytest.fixture
def layout(tmp_path: Path, made: Path) -> Layout:
    return Layout(Path(shutil.copytree(made, tmp_path / "data")))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    reported: list[str] = []
    yield reported
    tracking.close("KILLED")


def client(layout: Layout) -> MlflowClient:
    return MlflowClient(f"sqlite:///{layout.mlflow_database}")


def runs(client: MlflowClient) -> dict[str, Run]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def curve(client: MlflowClient, run: Run, name: str) -> list[float]:
    points = client.get_metric_history(run.info.run_id, name)
    return [point.value for point in sorted(points, key=lambda point: point.step)]


def delete_experiment(layout: Layout) -> None:
    experiment = client(layout).get_experiment_by_name(EXPERIMENT)
    client(layout).delete_experiment(experiment.experiment_id)


def test_two_that_make_the_store_at_once_have_one_also_after_a_kill(tmp_path, monkeypatch):
    layout = Layout(tmp_path / "data")

    def killed(engine: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # Between its first tables and their present form.
        patch.setattr(utils, "_upgrade_db", killed)
        with pytest.raises(KeyboardInterrupt):
            stores.Store(None, layout).reach()
    both = [stores.Store(None, layout) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(stores.Store.reach, both))
    assert both[0].experiment_id == both[1].experiment_id
    both[0].create_run("training", 0, None)


def test_runs_whose_process_was_killed_are_ended_by_the_next(layout, lines):
    killed = subprocess.run([sys.executable, "-c", BEGIN, str(layout.root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert {run.info.status for run in runs(client(layout)).values()} == {"RUNNING"}
    tracking.open_store(None, layout, lines.append)
    tracking.start_run("alive")
    assert {name: run.info.status for name, run in runs(client(layout)).items()} == {
        "sweep": "KILLED", "training": "KILLED", "alive": "RUNNING",
    }  # fmt: skip
    tracking.end_dead_runs(None, layout)
    assert runs(client(layout))["alive"].info.status == "RUNNING"
    tracking.close("FINISHED")
    assert runs(client(layout))["alive"].info.status == "FINISHED"
    assert list(layout.mlflow_running.iterdir()) == []
    assert lines == []


def test_an_end_that_the_store_missed_is_delivered_by_the_next(layout, lines, tmp_path):
    tracking.open_store(None, layout, lines.append)
    run = tracking.start_run("training")
    hidden = layout.mlflow_database.rename(tmp_path / "hidden.db")
    layout.mlflow_database.mkdir()
    run.end("FINISHED")
    tracking.close("KILLED")
    assert "out of reach" in lines[0]
    assert "a record is lost: end of the run training" in lines[-1]
    layout.mlflow_database.rmdir()
    hidden.rename(layout.mlflow_database)
    assert runs(client(layout))["training"].info.status == "RUNNING"
    # Its process is gone, as far as the lock is concerned.
    liveness._leave_to_parent()
    tracking.end_dead_runs(None, layout)
    ended = runs(client(layout))["training"].info
    assert (ended.status, ended.run_id) == ("FINISHED", run.id)


def test_a_deleted_experiment_is_restored_also_while_it_is_written_to(layout, lines):
    tracking.open_store(None, layout, lines.append)
    with tracking.training_run("before", {}):
        pass
    delete_experiment(layout)
    tracking.open_store(None, layout, lines.append)
    with tracking.training_run("training", {"seed": 1}) as run:
        run.log_metrics({"loss": 3.0}, 0)
        delete_experiment(layout)
        run.log_metrics({"loss": 2.0}, 1)
    tracking.close("FINISHED")
    found = runs(client(layout))
    assert found.keys() == {"before", "training"}
    assert curve(client(layout), found["training"], "loss") == [3, 2]
    assert found["training"].info.status == "FINISHED"
    assert lines == []


def test_a_run_that_somebody_deleted_does_not_hold_up_the_others(layout, lines):
    tracking.open_store(None, layout, lines.append)
    parent = tracking.start_run("sweep")
    with tracking.training_run("training", {}) as run:
        client(layout).delete_run(run.id)
        run.log_metrics({"loss": 1.0})
    parent.log_metrics({"loss": 1.0})
    tracking.close("FINISHED")
    assert runs(client(layout))["sweep"].data.metrics == {"loss": 1}
    assert lines[-1].startswith(f"MLflow ({stores.Store(None, layout).uri}): 2 records are lost")


def test_a_data_root_that_has_moved_keeps_its_artifacts_and_writes_to_the_new_place(
    lines, tmp_path, monkeypatch
):
    layout = Layout(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file.txt"
    file.write_text("content")
    tracking.open_store(None, layout, lines.append)
    tracking.start_run("first").log_artifact(file)
    tracking.close("FINISHED")
    moved = Layout(tmp_path / "elsewhere" / "data")
    moved.root.parent.mkdir()
    layout.root.rename(moved.root)
    tracking.open_store(None, moved, lines.append)
    tracking.start_run("second").log_artifact(file)
    tracking.close("FINISHED")
    for run in runs(client(moved)).values():
        [file] = client(moved).list_artifacts(run.info.run_id)
        place = moved.mlflow_artifacts / run.info.run_id / "artifacts" / file.path
        assert place.read_text() == "content"
        assert run.info.artifact_uri == place.parent.as_uri()
    places = {each.artifact_location for each in client(moved).search_experiments()}
    assert places == {moved.mlflow_artifacts.as_uri(), f"{moved.mlflow_artifacts.as_uri()}/0"}
    assert not layout.root.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "file.txt"}
    assert lines == []


@pytest.fixture
def blackhole() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("bound", ["its requests", "all of it"])
def test_a_server_that_never_answers_is_waited_for_once(
    bound, layout, lines, blackhole, monkeypatch
):
    if bound == "its requests":
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    else:
        monkeypatch.setattr(witness, "LIMIT", 0.5)
    began = time.monotonic()
    tracking.open_store(blackhole, layout, lines.append)
    with tracking.training_run("training", {"seed": 1}) as run:
        for epoch in range(1000):
            run.log_metrics({"loss": 1.0}, epoch)
    assert "out of reach" in lines[0]
    assert len(lines) == 1
    assert time.monotonic() - began < 60, "not once for each record"
    tracking.close("FINISHED")
    assert "still out of reach" in lines[1]
    assert "1003 records are lost, the first of them the run training" in lines[-1]
    assert "history.csv" in lines[-1]


def test_a_password_in_the_address_is_not_reported(layout, lines):
    tracking.open_store("http://me:s3cret@127.0.0.1:9", layout, lines.append)
    assert lines[0].startswith("MLflow (http://***@127.0.0.1:9) is out of reach")
    assert "s3cret" not in lines[0]


def test_by_default_a_request_is_given_up_soon():
    assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 10
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) <= 1


def test_where_it_is_required_a_server_that_is_down_is_an_error(layout, lines):
    with pytest.raises(TrackingError, match=r"out of reach.*tracking\.required=false"):
        tracking.open_store("http://127.0.0.1:9", layout, lines.append, required=True)


def test_a_store_that_is_no_database_is_left_alone(layout, lines, monkeypatch):
    monkeypatch.setattr(witness, "LIMIT", 1.0)
    layout.mlflow_database.write_text("not a database " * 1000)
    tracking.open_store(None, layout, lines.append)
    with tracking.training_run("training", {"seed": 1}):
        pass
    tracking.close("FINISHED")
    assert "out of reach" in lines[0]
    assert "lost" in lines[-1]


def test_a_training_elsewhere_is_nested_in_the_run_of_its_step(layout, lines):
    tracking.open_store(None, layout, lines.append)
    step = tracking.start_run("retrain")
    tracking.close("FINISHED")
    tracking.open_store(step.uri, layout, lines.append, outer=step.id)
    with tracking.training_run("convnext_model", {}):
        pass
    training = runs(client(layout))["convnext_model"]
    assert training.data.tags["mlflow.parentRunId"] == step.id


def test_a_step_in_a_process_of_its_own_adds_to_the_run_and_does_not_end_it(layout, lines):
    tracking.open_store(None, layout, lines.append)
    run = tracking.start_run("retrain")
    tracking.open_store(None, layout, lines.append)  # as the process of the step does
    step = tracking.start_run("retrain", lambda: run.id, ours=False)
    step.log_metrics({"test_accuracy": 0.5})
    with tracking.training_run("convnext_model", {}):
        pass
    tracking.close("KILLED")
    found = runs(client(layout))
    assert found["convnext_model"].data.tags["mlflow.parentRunId"] == run.id
    assert found["retrain"].data.metrics == {"test_accuracy": 0.5}
    assert found["retrain"].info.status == "RUNNING"
    run.end("FINISHED")
    assert runs(client(layout))["retrain"].info.status == "FINISHED"
