"""What a training records of each epoch."""

import math
import time
from typing import Any

import lightning as L
import pandas as pd
import torch

from cxr_assets.learning.energy import Meter
from cxr_assets.learning.lock import TrainingError
from cxr_assets.learning.module import MONITOR
from cxr_assets.progress import Progress
from cxr_assets.radiographs.datamodule import epoch_seed

_LINES = 25


class DivergedError(TrainingError):
    """The loss is not finite: repeating the training would not help."""


class History(L.Callback):
    """One row per epoch, and a progress line, unless there are very many epochs.

    It is part of the checkpoint: a resumed run has no gap, and an interrupted epoch has the mean
    training loss of all its batches.

    It also seeds every epoch by its number, so that a resumed run draws the same random numbers as
    an uninterrupted one.
    """

    def __init__(self, seed: int, progress: Progress) -> None:
        """Start an empty one.

        Args:
            seed: of the experiment.
            progress: called with a line per epoch.
        """
        self._seed = seed
        self._progress = progress
        self._rows: list[dict[str, float]] = []
        self._begin()

    def _begin(self) -> None:
        self._losses: dict[str, torch.Tensor] = {}
        self._images = 0
        self._seconds = 0.0
        self._joules: float | None = 0.0
        self._resume()

    def _resume(self) -> None:
        self._started = time.monotonic()
        self._meter = Meter()

    def _spent(self) -> tuple[float, float | None]:
        """Seconds of the epoch, and joules if they are measured."""
        seconds = self._seconds + time.monotonic() - self._started
        counted = self._meter.joules()
        if counted is None or self._joules is None:
            return seconds, None
        return seconds, self._joules + counted

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        seconds, joules = self._spent()
        return {
            "rows": self._rows,
            "losses": self._losses,
            "images": self._images,
            "seconds": seconds,
            "joules": joules,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self._rows = state_dict["rows"]
        self._losses = state_dict["losses"]
        self._images = state_dict["images"]
        self._seconds = state_dict["seconds"]
        self._joules = state_dict["joules"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._resume()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._begin()
        L.seed_everything(epoch_seed(self._seed, trainer.current_epoch), verbose=False)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if module.automatic_optimization:
            shard = trainer.train_dataloader.sampler.shard(index)
            for name, value in outputs.items():
                # Lightning has divided the one that has gradients.
                share = trainer.accumulate_grad_batches if name == "loss" else 1
                loss = value.detach().float() * shard.counted * share
                loss = trainer.strategy.reduce(loss, reduce_op="sum")
                self._losses[name] = loss + self._losses.get(name, torch.zeros(())).to(loss.device)
            self._images += shard.total

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        # Lightning's own mean would leave out the batches before an interruption.
        for name, loss in self._losses.items():
            module.log(f"train_{name}", loss / self._images, batch_size=1, sync_dist=True)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch
        if not math.isfinite(values["train_loss"] + values["val_loss"]):
            raise DivergedError(
                f"the loss is not finite in epoch {epoch} (train {values['train_loss']}, "
                f"validation {values['val_loss']}): lower model.lr"
            )
        seconds, joules = self._spent()
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": epoch, **values, "lr": rate, "seconds": seconds}
        self._rows.append(row if joules is None else {**row, "joules": joules})
        every = max(1, (trainer.max_epochs or 1) // _LINES)
        if (epoch + 1) % every:
            return
        self._progress(
            f"epoch {epoch + 1}/{trainer.max_epochs}: train loss {values['train_loss']:.3f}, "
            f"validation loss {values['val_loss']:.3f}, macro F1 {values[MONITOR]:.3f}, "
            f"AUROC {values['val_auroc']:.3f}, {seconds:.0f} s"
        )

    def table(self) -> pd.DataFrame:
        """The rows so far."""
        return pd.DataFrame(self._rows)
