import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import forking
import pytest
import tiny
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from cxr_assets.layout import Layout
from cxr_assets.store import EXPERIMENT

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
OVERRIDES = (
    "data.synthetic_patients=8",
    "data.image_size=32",
    *tiny.NETWORKS,
    "trainer.max_epochs=2",
    *tiny.LIMITS,
)


@dataclass
class Workplace:
    """A data root with a Dagster instance of its own, and the commands of the README."""

    root: Path
    overrides: list[str] = field(default_factory=lambda: list(OVERRIDES))

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def home(self) -> Path:
        return self.root / "dagster"

    @property
    def environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CXR_")}
        for name in ("HF_TOKEN", "HF_ENDPOINT"):
            clean.pop(name, None)
        return {
            **clean,
            "CXR_DATA_ROOT": str(self.root),
            "CXR_EXPERIMENT": "demo",
            "CXR_OVERRIDES": " ".join(self.overrides),
            "DAGSTER_HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def prepare(self) -> None:
        self.home.mkdir(parents=True)
        shutil.copyfile(REPOSITORY / "dagster.yaml", self.home / "dagster.yaml")

    def command(
        self, *arguments: str, fresh: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Args:
            arguments: its name first.
            fresh: in a Python that has imported nothing yet, as a user does.
            environment: variables besides those of this place.
        """
        given = {**self.environment, **environment}
        if not fresh:
            return forking.run(arguments, REPOSITORY, given, 280)
        return subprocess.run(
            arguments,
            cwd=REPOSITORY,
            env=given,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    def retrain(
        self, *overrides: str, fresh: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        words = "dagster job execute -m cxr_assets.definitions -j retrain"
        return self._run(words, overrides, fresh, environment)

    def materialize(
        self, selection: str, *overrides: str, fresh: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return self._run(f"dg launch --assets {selection}", overrides, fresh, environment)

    def _run(
        self, words: str, overrides: tuple[str, ...], fresh: bool, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return self.command(
            *words.split(),
            fresh=fresh,
            CXR_OVERRIDES=" ".join([*self.overrides, *overrides]),
            **environment,
        )

    def runs(self) -> list[dg.DagsterRun]:
        """Dagster's runs, newest first."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return list(instance.get_runs())

    def mlflow_runs(self) -> list[Run]:
        """MLflow's runs, newest first."""
        client = MlflowClient(f"sqlite:///{self.layout.mlflow_database}")
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id]))

    def mlflow_parent(self, run_id: str) -> Run:
        """The one MLflow run of a Dagster run."""
        (parent,) = [
            run for run in self.mlflow_runs() if run.data.tags.get("dagster_run_id") == run_id
        ]
        return parent


@pytest.fixture(scope="session")
def new_workplace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Workplace]:
    def make() -> Workplace:
        workplace = Workplace(tmp_path_factory.mktemp("workplace"))
        workplace.prepare()
        return workplace

    return make


@pytest.fixture(scope="module")
def trained(new_workplace: Callable[[], Workplace]) -> Workplace:
    """A workplace after one ``dagster job execute`` of the main job, on a tiny experiment."""
    workplace = new_workplace()
    finished = workplace.retrain(fresh=True)
    assert finished.returncode == 0, finished.stderr[-5000:]
    return workplace


@pytest.fixture(scope="session")
def untouched_instance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of an empty Dagster instance, which take it a second to make."""
    folder = tmp_path_factory.mktemp("untouched-instance")
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        assert not instance.get_runs()
        assert not instance.all_asset_keys()
        assert not instance.all_instigator_state()
    return folder


@pytest.fixture
def instance(tmp_path: Path, untouched_instance: Path) -> Iterator[dg.DagsterInstance]:
    """An empty Dagster instance."""
    shutil.copytree(untouched_instance, tmp_path, dirs_exist_ok=True)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance
