"""Stopping a training between two steps of the optimiser, and resuming from that batch."""

import random
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException

# Lightning does not know that the sampler skips the batches before it.
warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stopped(BaseException):
    """Leaves Lightning's loops once the state is on disk."""


class Signals:
    """SIGINT and SIGTERM, recorded instead of handled, and handled later.

    Attributes:
        received: number of the last one.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._handlers: dict[int, Any] = {}

    def record(self) -> None:
        """From now on, only record them; signals that were ignored still are."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    @contextmanager
    def handed_on(self) -> Iterator[None]:
        """Context in which a training can be stopped; afterwards, the signal is passed on.

        Raises:
            SystemExit: on SIGTERM without a handler; otherwise, what the handler raises.
        """
        self._handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            yield
        except _Stopped:
            pass
        except SIGTERMException:
            # Lightning receives it before the first batch, and would end with exit status 0.
            self.received = signal.SIGTERM
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in self._handlers.items():
                    signal.signal(number, handler)
        if self.received is not None:
            if self._handlers[self.received] is signal.SIG_DFL:
                raise SystemExit(128 + self.received)
            signal.raise_signal(self.received)
            raise KeyboardInterrupt  # its handler did not raise


class Interruption(Checkpoint):
    """On SIGINT or SIGTERM, writes a checkpoint and stops after the optimiser's next step.

    An interrupt raised at any point could leave the weights half updated, and no checkpoint holds
    the gradients of batches that still wait for their step. While batches run, the signals are
    therefore only recorded; after the checkpoint is written, they are passed to their previous
    handlers. Because this is a ``Checkpoint``, Lightning calls it last, after the other callbacks
    have seen the batch. If one of several processes has received a signal, all stop after the same
    step.

    Every checkpoint includes the state of the random number generators.

    Args:
        path: of the checkpoint.
        signals: as received.
    """

    def __init__(self, path: Path, signals: Signals) -> None:
        self._path = path
        self._signals = signals
        self._random: dict[str, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Resume in the middle of an epoch; install the signal handlers, after Lightning's."""
        if self._random is not None:
            _set_random_state(self._random)
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if trainer.fit_loop.restarting and not progress.is_last_batch:
            trainer.train_dataloader.sampler.skip(progress.current.ready)
        self._signals.record()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Stop after a step, unless validation follows: Lightning would skip it after resuming."""
        stepped = (index + 1) % trainer.accumulate_grad_batches == 0
        if not stepped or trainer.is_last_batch:
            return
        received = self._signals.received is not None
        if trainer.strategy.reduce_boolean_decision(received, all=False):
            self._stop(trainer)

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, *batch: Any, **more: Any
    ) -> None:
        """Stop here, as if validation had not started.

        Several processes have different numbers of batches: they stop after the next step.
        """
        if self._signals.received is None or trainer.world_size > 1:
            return
        for callback in trainer.callbacks:
            if isinstance(callback, WeightAveraging):
                callback.on_validation_epoch_end(trainer, module)
        # Looks to Lightning like a validation that did not finish its first batch.
        progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        progress.reset()
        progress.increment_ready()
        progress.increment_started()
        self._stop(trainer)

    def state_dict(self) -> dict[str, Any]:
        """State of the random number generators."""
        numpy = np.random.get_state(legacy=False)
        # A checkpoint holds only tensors and plain values, so that it loads safely.
        numpy["state"]["key"] = numpy["state"]["key"].tolist()
        return {
            "python": random.getstate(),
            "numpy": numpy,
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the first batch: setup code may draw random numbers before."""
        self._random = state_dict

    def _stop(self, trainer: L.Trainer) -> None:
        # Another process may be the one that received it.
        self._signals.received = self._signals.received or signal.SIGTERM
        trainer.save_checkpoint(self._path, weights_only=False)
        raise _Stopped


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
