"""A training on several workers of the cluster: Ray Train around the same module and data."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import ray
import ray.exceptions
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.strategies import Strategy
from ray.train import RunConfig, ScalingConfig
from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from cxr_assets.cluster.call import Job, watched
from cxr_assets.experiment import Compute
from cxr_assets.learning.distributed import Relay, Training, methods, portable
from cxr_assets.progress import Progress

# Seconds between two looks whether the workers have ended.
_POLL = 0.5


class WorkerError(Exception):
    """A worker of the cluster was lost."""

    def __init__(self, worker: str, remedy: str) -> None:
        super().__init__(
            f"{worker} is gone: it was killed, its node is lost, or memory was short. {remedy}"
        )


@contextmanager
def awaited(worker: str, remedy: str) -> Iterator[None]:
    """Raise what a worker has raised as its own error, not as one of Ray.

    Args:
        worker: that the body waits for, in words.
        remedy: if it is lost.

    Raises:
        Exception: what the worker raised.
        WorkerError: it is gone.
    """
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise WorkerError(worker, remedy) from error


def run(
    compute: Compute,
    job: Job,
    train: Training,
    workers: int,
    progress: Progress,
    logger: Logger | None,
    saved: Callable[[], None],
) -> pd.DataFrame:
    """Run a training on as many workers, and return what the first one returns.

    Args:
        compute: what each worker reserves.
        job: whose folder Ray Train writes to; workers end with it.
        train: is pickled.
        workers: how many share each batch.
        progress: called with the lines of the first worker.
        logger: receives what the first worker logs.
        saved: called when it has written a checkpoint.

    Raises:
        WorkerError: a worker was killed, or its node is gone.
        Exception: what a worker raised.
    """
    queue = Queue(actor_options={"num_cpus": 0})
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "train": train,
            "queue": queue,
            "logs": bool(logger),
        },
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=compute.gpus > 0,
            resources_per_worker={"CPU": compute.cpus}
            | ({"GPU": compute.gpus} if compute.gpus else {}),
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(job.folder),
            worker_runtime_env=watched(job.alive),
        ),
    )
    failures: list[Exception] = []
    waiting = threading.Thread(target=_wait, args=(trainer, failures), daemon=True)
    waiting.start()
    calls: dict[str, Callable[..., Any]] = {"progress": progress, "saved": saved}
    calls |= methods(logger)
    errors: list[Exception] = []
    result: pd.DataFrame | None = None
    while True:
        ended = not waiting.is_alive()
        try:
            name, content = queue.get(timeout=_POLL)
        except Empty:
            if ended:
                break
            continue
        if name == "result":
            (result,) = content
        elif name == "error":
            errors.extend(content)
        else:
            calls[name](*content)
    queue.shutdown()
    if errors:
        raise errors[0]
    if failures or result is None:
        raise WorkerError(
            "a worker of the training", "Run the same again: it resumes from the last epoch"
        ) from next(iter(failures), None)
    return result


def _wait(trainer: TorchTrainer, failures: list[Exception]) -> None:
    try:
        trainer.fit()
    except Exception as error:  # noqa: BLE001 - raised again where the messages are read
        failures.append(error)


def _work(config: dict[str, Any]) -> None:
    """One of the workers."""
    queue: Queue = config["queue"]
    context = ray.train.get_context()
    rank = context.get_world_rank()

    def send(name: str, *content: Any) -> None:
        queue.put((name, content))

    first = rank == 0
    strategy: Strategy | str = "auto"
    if context.get_world_size() > 1:  # the probe has no gradients, which DDP rejects
        strategy = RayDDPStrategy(
            cluster_environment=RayLightningEnvironment(), forward_sync_buffers=False
        )
    try:
        result = config["train"](
            (lambda line: send("progress", line)) if first else (lambda line: None),
            Relay(send) if first and config["logs"] else None,
            lambda: send("saved"),
            strategy,
            1,
        )
    except Exception as error:
        send("error", portable(error, rank))
        raise
    if first:
        send("result", result)
