"""Fitting: in a work folder, going on where an interrupted run of the same training stopped."""

import json
import logging
import math
import sys
import time
import warnings
from typing import Any

import lightning as L
import pandas as pd
from filelock import FileLock
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import MLFlowLogger
from transformers.utils.logging import disable_progress_bar

from cxr_assets.learning.module import MONITOR
from cxr_assets.learning.plan import FINISHED_FILE, Plan
from cxr_assets.learning.recipe import Progress
from cxr_serving.bundle import CHECKPOINT_FILE, HISTORY_FILE

_LAST_FILE = "last.ckpt"
_LINES = 25


class TrainingError(Exception):
    """A training cannot go on; the message says why and what to do."""


def fit(plan: Plan, progress: Progress, logger: MLFlowLogger | None = None) -> None:
    """Train until done, going on where an interrupted run of the same fingerprint stopped.

    Args:
        plan: what to train.
        progress: called with one line an epoch.
        logger: of the curves; its run is named in the bundle.

    Raises:
        TrainingError: the loss is not finite.
    """
    plan.work.mkdir(parents=True, exist_ok=True)
    with FileLock(plan.lock):
        _train(plan, progress, logger)
        run_id = logger.run_id if logger else None
        (plan.work / FINISHED_FILE).write_text(json.dumps({"mlflow_run_id": run_id}))


# One line an epoch is what is worth reading; the libraries' own chatter is not.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")
disable_progress_bar()


def _train(plan: Plan, progress: Progress, logger: MLFlowLogger | None) -> None:
    L.seed_everything(plan.experiment.seed, verbose=False)
    module, datamodule = plan.recipe.prepare(plan.network, plan.layout, progress)
    history = _History(plan.experiment.seed, progress)
    callbacks: list[L.Callback] = [
        *plan.recipe.callbacks(),
        history,
        ModelCheckpoint(
            plan.work,
            filename=CHECKPOINT_FILE.removesuffix(".ckpt"),
            monitor=MONITOR,
            mode="max",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        ModelCheckpoint(
            plan.work,
            filename=_LAST_FILE.removesuffix(".ckpt"),
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        EarlyStopping(
            MONITOR, mode="max", patience=plan.recipe.patience, check_on_train_epoch_end=True
        ),
    ]
    in_terminal = sys.stderr.isatty()
    if in_terminal:
        callbacks.append(TQDMProgressBar())
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=plan.recipe.max_epochs,
        deterministic="warn" if plan.experiment.deterministic else False,
        callbacks=callbacks,
        logger=logger or False,
        enable_progress_bar=in_terminal,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=plan.work,
    )
    last = plan.work / _LAST_FILE
    if last.exists():
        progress(f"going on from {last}")
    trainer.fit(
        module,
        datamodule=datamodule,
        ckpt_path=last if last.exists() else None,
        weights_only=True,
    )
    history.table().to_csv(plan.work / HISTORY_FILE, index=False)


class _History(L.Callback):
    """One row an epoch, and a line unless there are very many of them.

    It travels in the checkpoint, so a resumed run has no gap.

    It also seeds every epoch by its number: what follows a resume draws the same random numbers as
    an uninterrupted run.
    """

    def __init__(self, seed: int, progress: Progress) -> None:
        self._seed = seed
        self._progress = progress
        self._rows: list[dict[str, float]] = []
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows = state_dict["rows"]

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._started = time.monotonic()
        L.seed_everything(self._seed * 1_000_003 + trainer.current_epoch, verbose=False)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch
        if not math.isfinite(values["train_loss"] + values["val_loss"]):
            raise TrainingError(
                f"the loss is not finite in epoch {epoch} (train {values['train_loss']}, "
                f"validation {values['val_loss']}): lower trainer.lr"
            )
        seconds = time.monotonic() - self._started
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._rows.append({"epoch": epoch, **values, "lr": rate, "seconds": seconds})
        every = max(1, (trainer.max_epochs or 1) // _LINES)
        if (epoch + 1) % every:
            return
        self._progress(
            f"epoch {epoch + 1}/{trainer.max_epochs}: train loss {values['train_loss']:.3f}, "
            f"validation loss {values['val_loss']:.3f}, macro F1 {values[MONITOR]:.3f}, "
            f"AUROC {values['val_auroc']:.3f}, {seconds:.0f} s"
        )

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows)
