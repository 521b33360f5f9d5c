"""A training in several processes of this machine, one for each device.

Lightning would start them by running the command line again, which in a step of Dagster is that of
the whole run. Here the process that is to train starts them all, and does not compute itself: so it
can end them whatever they wait for, and it alone reports, logs and holds the training's lock.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy

from cxr_assets.learning.interruption import Signals
from cxr_assets.learning.lock import TrainingError
from cxr_assets.progress import Progress

# What a training of the main model imports: once, by the server that processes are forked from.
PRELOADED = [
    "cxr_assets.learning.ema",
    "cxr_assets.learning.fit",
    "cxr_assets.radiographs.datamodule",
    "transformers.models.convnextv2.modeling_convnextv2",
]
# Seconds between two looks at the signals that this process has received.
_POLL = 0.2
# Seconds that a process may take to end after another one has ended.
_GRACE = 60.0
# Seconds after an error in which another process, killed before it, is seen to have ended.
_CAUSE = 2.0
# Gradients of a vector, whose strides along dimensions of size 1 say nothing.
warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class Training(Protocol):
    """What each process runs; the result of the first one counts.

    It needs to know the devices that its own machine contributes.
    """

    def __call__(
        self,
        progress: Progress,
        logger: Logger | None,
        saved: Callable[[], None],
        strategy: Strategy | str,
        devices: int,
    ) -> Any: ...


@dataclass(frozen=True)
class _Rank:
    number: int
    process: ForkServerProcess
    messages: Connection

    def ended(self) -> TrainingError:
        """The error that it has ended before the training did."""
        code = self.process.exitcode or 0
        number = -code if code < 0 else code - 128
        by = signal.Signals(number).name if number in list(signal.Signals) else f"code {code}"
        return TrainingError(
            f"the training's process on device {self.number} was ended by {by}: if nobody did it, "
            "memory was short. Run the same again: it resumes from the last checkpoint"
        )


def run(
    train: Training,
    devices: int,
    progress: Progress,
    logger: Logger | None,
    saved: Callable[[], None],
) -> Any:
    """Run a training in a process for each device, and return what the first one returns.

    SIGINT and SIGTERM are passed on to the processes, and handled once all have ended. If one of
    them fails or is killed, the others are killed. None outlives this process.

    Args:
        train: is pickled.
        devices: accelerators of this machine, or processes that share its CPU if it has none.
        progress: called with the lines of the first process.
        logger: receives what the first process logs.
        saved: called when it has written a checkpoint; it does not wait.

    Raises:
        TrainingError: the machine has fewer accelerators, or a process was killed.
        Exception: what a process raised.
    """
    if torch.cuda.is_available() and (found := torch.cuda.device_count()) < devices:
        raise TrainingError(
            f"trainer.devices={devices}, but this machine has {found}: set trainer.devices={found}"
        )
    # Not a plain fork, which would copy the threads and locks of this process.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    signals = Signals()
    ranks: list[_Rank] = []
    with TemporaryDirectory() as folder, signals.handed_on():
        signals.record()
        try:
            for number in range(devices):
                ours, theirs = context.Pipe(duplex=False)
                arguments = train, number, devices, Path(folder) / "store", theirs, bool(logger)
                process = context.Process(target=_work, args=arguments)
                process.start()
                theirs.close()
                ranks.append(_Rank(number, process, ours))
            calls: dict[str, Callable[..., Any]] = {"progress": progress, "saved": saved}
            calls |= methods(logger)
            return _follow(ranks, signals, calls)
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.join()
                rank.messages.close()


def _follow(ranks: list[_Rank], signals: Signals, calls: Mapping[str, Callable[..., Any]]) -> Any:
    """Do what the processes ask for until all have ended."""
    running = list(ranks)
    result, terminated, deadline = None, False, float("inf")
    while running and time.monotonic() < deadline:
        if signals.received is not None and not terminated:
            terminated = True
            for rank in ranks:
                rank.process.terminate()
        ready = wait([rank.messages for rank in running], _POLL)
        for rank in [rank for rank in running if rank.messages in ready]:
            try:
                name, content = rank.messages.recv()
            except (EOFError, OSError):  # it has ended, or was killed while it wrote
                running.remove(rank)
                deadline = min(deadline, time.monotonic() + _GRACE)
                rank.process.join()
                if rank.process.exitcode and not terminated:
                    raise rank.ended() from None
                continue
            if name == "result":
                (result,) = content
            elif name != "error":
                calls[name](*content)
            elif not terminated or isinstance(content[0], TrainingError):
                raise _cause(ranks, rank, *content)
    if running and not terminated:
        raise TrainingError(
            f"the training's process on device {running[0].number} did not end with the others: "
            "run the same again, it resumes from the last checkpoint"
        )
    return result


def _cause(ranks: list[_Rank], failed: _Rank, error: Exception) -> Exception:
    """The error of a process, or that another one was killed, which makes the others fail, too."""
    others = [rank for rank in ranks if rank is not failed]
    wait([rank.process.sentinel for rank in others], _CAUSE)
    killed = (rank for rank in others if (rank.process.exitcode or 0) < 0)
    return next((rank.ended() for rank in killed), error)


class Relay(Logger):
    """The logger of the first process: the one that started it logs."""

    name = version = None

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self._send = send

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._send("log_metrics", dict(metrics), step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *more: Any, **rest: Any) -> None:
        self._send("log_hyperparams", params)

    def finalize(self, status: str) -> None:
        self._send("finalize", status)


def methods(logger: Logger | None) -> dict[str, Callable[..., Any]]:
    names = ("log_metrics", "log_hyperparams", "finalize")
    return {name: getattr(logger, name) for name in names} if logger else {}


def _work(
    train: Training, number: int, devices: int, store: Path, messages: Connection, logs: bool
) -> None:
    """One of the processes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches every process of a terminal; the one that started this passes it on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", _LOOPBACK)
    os.environ["LOCAL_RANK"] = str(number)  # so that Lightning starts no processes

    def send(name: str, *content: Any) -> None:
        messages.send((name, content))

    first = number == 0
    try:
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store.as_uri(),
            rank=number,
            world_size=devices,
        )
        result = train(
            (lambda line: send("progress", line)) if first else (lambda line: None),
            Relay(send) if first and logs else None,
            lambda: send("saved"),
            DDPStrategy(cluster_environment=LightningEnvironment(), forward_sync_buffers=False),
            devices,
        )
        if first:
            send("result", result)
        torch.distributed.destroy_process_group()
    except Exception as error:  # noqa: BLE001 - raised again where it is received
        send("error", portable(error, number))
        os._exit(1)  # without waiting for processes that wait for this one


def portable(error: Exception, number: int) -> Exception:
    """An error that can be sent to another process, with its traceback."""
    error.add_note(f"on device {number}:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # noqa: BLE001 - whatever its type raises
        return RuntimeError("\n".join([repr(error), *error.__notes__]))
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
