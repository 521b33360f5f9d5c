"""Trainings of a sweep as tasks on the cluster: each on one worker, several at the same time."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import ray

from cxr_assets import liveness, presence, tracking, training
from cxr_assets.cluster.call import ClusterError, watched
from cxr_assets.cluster.ranks import awaited
from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout


@contextmanager
def started(
    experiments: Sequence[Experiment], layout: Layout, outer: str | None
) -> Iterator[list[Callable[[], Path]]]:
    """Start to train; yields what waits for each training, in the same order.

    As :func:`cxr_assets.training.train`, each returns the bundle's directory, or raises. Trainings
    that have not ended are stopped at the end of the context, or with this process.

    Args:
        experiments: with what each reserves.
        layout: of the data root, which the nodes see at the same path.
        outer: id of the MLflow run that those of the trainings are nested in.

    Raises:
        ClusterError: this process does not run on the cluster.
    """
    if "RAY_ADDRESS" not in os.environ:
        raise ClusterError(
            "with compute=ray, cxr train is to run on the cluster: ray job submit --address "
            f"{experiments[0].compute.address} -- cxr train ..., with the same overrides"
        )
    alive = layout.jobs / f"cxr-sweep-{uuid.uuid4().hex[:12]}"
    lock = liveness.Lock(alive, {})
    ray.init()
    with presence.renewed(alive):
        tasks = [
            ray.remote(_trial)
            .options(
                num_cpus=one.compute.cpus,
                num_gpus=one.compute.gpus,
                max_retries=0,
                runtime_env=watched(alive),
            )
            .remote(one, layout, outer)
            for one in experiments
        ]
        try:
            yield [partial(_wait, task) for task in tasks]
        finally:
            lock.release()
            ray.shutdown()


def _wait(task: "ray.ObjectRef[Path]") -> Path:
    with awaited("the worker of this training", "The same command resumes it"):
        directory: Path = ray.get(task)
    return directory


def _trial(experiment: Experiment, layout: Layout, outer: str | None) -> Path:
    """One training, in a worker."""
    progress = partial(print, file=sys.stderr, flush=True)
    uri = os.environ.get("CXR_MLFLOW_URI") or None
    tracking.open_store(uri, layout, progress, experiment.tracking.required, outer)
    try:
        here = experiment.compute.model_copy(update={"engine": "local"})
        return training.train(experiment.model_copy(update={"compute": here}), layout, progress)
    finally:
        tracking.close("KILLED")
