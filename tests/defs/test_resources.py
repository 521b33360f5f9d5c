import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import tiny
from mlflow.tracking import MlflowClient
from net import free_port, wait_for_server

from cxr_assets import tracking, training
from cxr_assets.defs.assets.raw_kaggle import raw_kaggle
from cxr_assets.defs.resources import DataRoot, Experiment, mlflow
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.store import EXPERIMENT


class Server:
    """A real MLflow server on loopback that can be killed and restarted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "mlflow"),
                    "server",
                    "--workers=1",
                    f"--port={self._port}",
                    f"--backend-store-uri=sqlite:///{self._folder}/server.db",
                    f"--artifacts-destination={self._folder}/artifacts",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for_server(self._process, f"{self.url}/health", self._folder / "log")

    def kill(self) -> None:
        """Kill it together with its worker, which would keep answering."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def test_a_server_given_by_uri_gets_the_runs_instead_of_the_sqlite_file(new_workplace, server):
    """Also without DAGSTER_HOME, which is a warning only."""
    workplace = new_workplace()
    finished = workplace.materialize("raw_kaggle", CXR_MLFLOW_URI=server.url, DAGSTER_HOME="")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "DAGSTER_HOME is not set" in finished.stderr
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert f" - {run.data.tags['dagster_run_id']} - " in finished.stderr, "that of Dagster"
    assert not workplace.layout.mlflow_database.exists()


@pytest.mark.parametrize("back", [True, False], ids=["and comes back", "for good"])
def test_a_training_continues_when_the_server_dies(back, server, tmp_path):
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=2)
    overrides = [*tiny.NETWORKS, "trainer.max_epochs=4", "trainer.batch_size=4"]
    plan = make_plan("convnext_model", compose("demo", overrides), layout)
    lines: list[str] = []

    def progress(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2/4"):
            server.kill()
        elif line.startswith("epoch 4/4") and back:
            server.start()

    tracking.open_store(server.url, layout, progress)
    parent = tracking.start_run("retrain")
    training.fit(plan, progress)
    parent.set_tags({"asset": "convnext_model"})
    tracking.close("FINISHED")

    said = [line for line in lines if line.startswith("MLflow")]
    assert "continuing without it" in said[0]
    history = pd.read_csv(plan.work / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    if not back:
        assert "lost" in said[-1]
        assert len(said) <= 4
        return
    assert "is back and has received the" in said[-1]
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    points = client.get_metric_history(runs["convnext_model"].info.run_id, "val_macro_f1")
    curve = [point.value for point in sorted(points, key=lambda point: point.step)]
    recorded = history["val_macro_f1"].tolist()
    assert curve == pytest.approx(recorded)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["retrain"].data.tags["asset"] == "convnext_model"
    assert [file.path for file in client.list_artifacts(runs["convnext_model"].info.run_id)]


def test_if_tracking_is_required_a_run_without_its_server_fails(tmp_path):
    def materialize(required: bool) -> bool:
        overrides = f"data.synthetic_patients=3 data.image_size=32 tracking.required={required}"
        return dg.materialize(
            [raw_kaggle],
            resources={
                "experiment": Experiment(preset="demo", overrides=overrides),
                "data_root": DataRoot(path=str(tmp_path)),
                "mlflow": mlflow.configured({"uri": f"http://127.0.0.1:{free_port()}"}),
            },
            raise_on_error=False,
        ).success

    assert materialize(required=False)
    assert not materialize(required=True)
