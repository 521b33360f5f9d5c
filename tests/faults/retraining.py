"""The job ``retrain`` up to the main model, in a process of its own that can be killed."""

import signal
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import tiny
from forking import PROCESSES
from mlflow.tracking import MlflowClient

from cxr_assets import tracking
from cxr_assets.defs.executor import fail_dead_runs
from cxr_assets.layout import Layout
from cxr_assets.store import EXPERIMENT

OVERRIDES = (
    "data.synthetic_patients=8",
    "data.image_size=32",
    *tiny.NETWORKS,
    "trainer.max_epochs=3",
)
ASSETS = [dg.AssetKey(name) for name in ("raw_kaggle", "processed_dataset", "convnext_model")]


class Place:
    """A data root with a Dagster instance.

    Args:
        root: the data root.
        home: of Dagster.
        overrides: of the experiment ``demo``, besides ``OVERRIDES``.
        mlflow: tracking URI; None for the file in the data root.
    """

    def __init__(
        self, root: Path, home: Path, overrides: Sequence[str] = (), mlflow: str | None = None
    ) -> None:
        self.layout = Layout(root)
        self.home = home
        home.mkdir(exist_ok=True)
        self.mlflow = mlflow
        self.overrides = (*OVERRIDES, *overrides)

    @property
    def run_config(self) -> dict[str, Any]:
        return {
            "resources": {
                "data_root": {"config": {"path": str(self.layout.root)}},
                "experiment": {"config": {"preset": "demo", "overrides": " ".join(self.overrides)}},
                "mlflow": {"config": {"uri": self.mlflow}},
            }
        }

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.local_temp(str(self.home))

    def tend(self) -> None:
        """What the sensor ``killed_runs`` does every half a minute."""
        with self.instance() as instance:
            fail_dead_runs(instance)
        tracking.end_dead_runs(self.mlflow, self.layout)

    def states(self) -> tuple[list[str], list[str]]:
        """Of all runs, the oldest first: in Dagster, and in the file of MLflow."""
        with self.instance() as instance:
            ours = [run.status.value for run in reversed(list(instance.get_runs()))]
        client = MlflowClient(f"sqlite:///{self.layout.mlflow_database}")
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return ours, []
        found = client.search_runs([experiment.experiment_id], order_by=["start_time"])
        return ours, [run.info.status for run in found]


class Retraining:
    """The job, from its start on.

    Args:
        place: where.
        stop_at: a function by module and name; the process waits there, to be killed.
    """

    def __init__(self, place: Place, stop_at: str | None = None) -> None:
        self._ours, theirs = PROCESSES.Pipe()
        self.process: ForkServerProcess = PROCESSES.Process(
            target=_retrain, args=(place.home, place.run_config, stop_at, theirs)
        )
        self.process.start()
        theirs.close()

    def wait(self, seconds: float = 600) -> list[str]:
        """The errors of the run, none if it succeeded; ``["stopped"]`` where it was to stop."""
        assert self._ours.poll(seconds), "it takes too long"
        try:
            errors: list[str] = self._ours.recv()
        except EOFError:
            return ["the process was killed"]
        if errors != ["stopped"]:
            self.process.join(60)
        return errors

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process by a signal."""
        if number is signal.SIGKILL:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.join(60)
        assert self.process.exitcode is not None, "it goes on"


def _job() -> dg.JobDefinition:
    from cxr_assets.definitions import definitions

    return definitions.resolve_job_def("retrain")


def _retrain(
    home: Path, run_config: Mapping[str, Any], stop_at: str | None, theirs: Connection
) -> None:
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        if stop_at is not None:
            module, _, name = stop_at.rpartition(".")

            def stop(*arguments: object, **more: object) -> None:
                theirs.send(["stopped"])
                theirs.recv()

            patch.setattr(import_module(module), name, stop)
        errors = []
        try:
            with dg.DagsterInstance.local_temp(str(home)) as instance:
                done = dg.execute_job(
                    dg.reconstructable(_job),
                    instance,
                    run_config=dict(run_config),
                    asset_selection=ASSETS,
                )
                for event in done.all_events:
                    if event.is_failure and event.is_step_event:
                        errors.append(event.step_failure_data.error.to_string())
                    if event.is_job_failure and event.job_failure_data.error:
                        errors.append(event.job_failure_data.error.to_string())
        except Exception as error:  # noqa: BLE001 - what Dagster itself cannot record
            errors.append(f"{type(error).__name__}: {error}")
        theirs.send(errors)
