"""A data root and a Dagster instance, on which runs are launched as users launch them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pandas as pd

from benchmarks.cluster.nodes import Nodes
from benchmarks.cluster.tracked import Tracked, trainings
from cxr_assets import tracking
from cxr_assets.layout import Layout

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from mlflow_server import Server as Server

# Seconds in which something happens: long, as other programs may compute, too.
PATIENCE = 1500
ASSETS = ("raw_kaggle", "processed_dataset", "convnext_model", "dinov2_probe")
OVERRIDES = (
    "model.hidden_sizes=[8,8,16,16]",
    "model.depths=[1,1,1,1]",
    "probe.hidden_size=32",
    "probe.num_hidden_layers=1",
    "probe.num_attention_heads=2",
    "data.synthetic_patients=8",
    "data.image_size=32",
    "trainer.batch_size=8",
)


# Without a daemon, which would launch more than it is to.
_INSTANCE = """telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""


def on(cluster: Nodes) -> tuple[str, ...]:
    """The overrides by which steps run on a cluster."""
    return ("compute=ray", f"compute.address={cluster.address}")


class Place:
    """A data root and a Dagster instance, on which runs are launched one after the other.

    Args:
        folder: of both.
        overrides: of the experiment ``demo``, besides those that make it small.

    Attributes:
        mlflow: its server; a SQLite file in the data root if it is None.
    """

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.layout = Layout(folder / "data")
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        (self.home / "dagster.yaml").write_text(_INSTANCE)
        self.log = folder / "run.log"
        self.overrides = overrides
        self.mlflow: Server | None = None

    def launch(self, assets: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a run of some assets, in a process group of its own."""
        dagster = Path(sys.executable).parent / "dagster"
        materialize = (str(dagster), "asset", "materialize", "-m", "cxr_assets.definitions")
        return self.start([*materialize, "--select", ",".join(assets)])

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command, in a process group of its own."""
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | self._settings() | {"DAGSTER_HOME": str(self.home)},
            )

    def _settings(self) -> dict[str, str]:
        return {
            "CXR_EXPERIMENT": "demo",
            "CXR_DATA_ROOT": str(self.layout.root),
            "CXR_OVERRIDES": " ".join([*OVERRIDES, *self.overrides]),
            **({"CXR_MLFLOW_URI": self.mlflow.url} if self.mlflow else {}),
        }

    def run(self, *assets: str) -> None:
        """Run assets until they are there.

        Raises:
            RuntimeError: they fail.
        """
        if self.launch(assets).wait(PATIENCE):
            raise RuntimeError(self.log.read_text()[-5000:])

    def sweep(self, cluster: Nodes, *overrides: str) -> pd.DataFrame:
        """Train a sweep as a job on a cluster, and return its table.

        Raises:
            RuntimeError: a training fails.
        """
        job = subprocess.run(
            [
                *(Path(sys.executable).parent / "ray", "job", "submit"),
                *("--address", cluster.address),
                *("--runtime-env-json", json.dumps({"env_vars": self._settings()})),
                *("--", "cxr", "train", "-m", *overrides),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        if job.returncode:
            raise RuntimeError(job.stdout[-5000:])
        return pd.read_csv(max(self.layout.sweeps.glob("*.csv")))

    def trainings(self, asset: str) -> list[Tracked]:
        """All trainings of a model, the oldest first, as MLflow has them."""
        uri = self.mlflow.url if self.mlflow else f"sqlite:///{self.layout.mlflow_database}"
        return trainings(uri, asset)

    def end_dead_runs(self) -> None:
        """As the sensor for killed runs does."""
        tracking.end_dead_runs(self.mlflow.url if self.mlflow else None, self.layout)

    def statuses(self) -> list[str]:
        """Of all runs, the oldest first; a killed one has ended once the next has started."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return [run.status.value for run in reversed(list(instance.get_runs()))]
