import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from net import free_port, wait_for_server

from cxr_assets.tracking import EXPERIMENT


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    """A real MLflow server on loopback."""
    url = f"http://127.0.0.1:{free_port()}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "mlflow"),
                "server",
                "--workers=1",
                f"--port={url.rpartition(':')[2]}",
                f"--backend-store-uri=sqlite:///{tmp_path}/server.db",
                f"--artifacts-destination={tmp_path}/artifacts",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for_server(process, f"{url}/health", tmp_path / "log")
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


def test_a_server_given_by_uri_gets_the_runs_instead_of_the_sqlite_file(new_workplace, server):
    """Without DAGSTER_HOME, of which the user is warned, a run goes well, too."""
    workplace = new_workplace()
    finished = workplace.materialize("raw_kaggle", CXR_MLFLOW_URI=server, DAGSTER_HOME="")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "DAGSTER_HOME is not set" in finished.stderr
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert f" - {run.data.tags['dagster_run_id']} - " in finished.stderr, "that of Dagster"
    assert not workplace.layout.mlflow_database.exists()
