"""What each worker reserves on the cluster, as Ray receives it; no node here has a GPU."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("dagster_ray", reason="Ray is not installed: make .venv/ray")

from cxr_assets.cluster import images, ranks, trials
from cxr_assets.cluster.call import Job
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout


@pytest.fixture(params=[0, 0.5])
def experiment(request: pytest.FixtureRequest) -> Experiment:
    given = ("address=http://head:8265", "workers=3", "cpus=2.5", f"gpus={request.param}")
    return compose("demo", ["compute=ray", *(f"compute.{each}" for each in given)])


def test_each_worker_of_a_training(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: dict[str, Any] = {}

    class Trainer:
        def __init__(self, loop: Any, **arguments: Any) -> None:
            received.update(arguments)

        def fit(self) -> None:
            raise RuntimeError("not on a cluster")

    class Queue:
        def __init__(self, **arguments: Any) -> None:
            pass

        def get(self, timeout: float) -> Any:
            raise ranks.Empty

        def shutdown(self) -> None:
            pass

    monkeypatch.setattr(ranks, "TorchTrainer", Trainer)
    monkeypatch.setattr(ranks, "Queue", Queue)
    compute, job = experiment.compute, Job(Layout(tmp_path), "job")
    with pytest.raises(ranks.WorkerError):
        ranks.run(compute, job, lambda *of: None, 3, print, None, lambda: None)  # type: ignore[arg-type]
    scaling = received["scaling_config"]
    assert scaling.num_workers == 3
    assert scaling.use_gpu == (compute.gpus > 0)
    assert scaling.resources_per_worker == (
        {"CPU": 2.5, "GPU": compute.gpus} if compute.gpus else {"CPU": 2.5}
    )


def test_each_worker_that_reads_images(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: dict[str, Any] = {}

    class Stream:
        def map_batches(self, worker: type, **arguments: Any) -> "Stream":
            received.update(arguments)
            return self

        def iter_batches(self, **arguments: Any) -> list[pd.DataFrame]:
            return []

    monkeypatch.setattr(images.ray.data, "from_pandas", lambda tasks: Stream())
    table = pd.DataFrame({"source": ["a"], "sha256": ["b"], "target": ["c"]})
    images.write(experiment.compute, Job(Layout(tmp_path), "job"), table, 32, print)
    assert (received["num_cpus"], received["num_gpus"]) == (2.5, experiment.compute.gpus)
    assert received["compute"].min_size == received["compute"].max_size == 3


def test_each_training_of_a_sweep(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: dict[str, Any] = {}

    class Task:
        def options(self, **arguments: Any) -> "Task":
            received.update(arguments)
            return self

        def remote(self, *arguments: Any) -> None:
            pass

    ray = SimpleNamespace(init=lambda: None, shutdown=lambda: None, remote=lambda task: Task())
    monkeypatch.setattr(trials, "ray", ray)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with trials.started([experiment], Layout(tmp_path), None):
        pass
    assert (received["num_cpus"], received["num_gpus"]) == (2.5, experiment.compute.gpus)
