import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from mlflow.tracking import MlflowClient
from mlflow_server import Server
from net import free_port

from cxr_assets.defs.assets.raw_kaggle import raw_kaggle
from cxr_assets.defs.resources import DataRoot, Experiment, NoFolderError, mlflow
from cxr_assets.store import EXPERIMENT


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


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


def test_without_a_temporary_folder_a_run_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(NoFolderError, match=r"found in \['/tmp'\]: .* or set TMPDIR"):
        DataRoot().setup_for_execution(dg.build_init_resource_context())


def test_without_a_home_a_run_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 1000670000)  # which no file of users has
    with pytest.raises(NoFolderError, match="no home directory: set HOME to a folder"):
        DataRoot().setup_for_execution(dg.build_init_resource_context())
