"""Training in a work folder; an interrupted training is resumed."""

import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from filelock import FileLock
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.strategies import Strategy
from transformers.utils.logging import disable_progress_bar

from cxr_assets.groups import Precision
from cxr_assets.learning.allocator import keep_freed_memory
from cxr_assets.learning.checkpoints import (
    LAST_FILE,
    TrainingError,
    WholeCheckpoints,
    resumable,
    writing,
)
from cxr_assets.learning.energy import Meter
from cxr_assets.learning.interruption import Interruption, Signals
from cxr_assets.learning.module import MONITOR
from cxr_assets.learning.plan import FINISHED_FILE, Plan
from cxr_assets.progress import Progress, acquire
from cxr_assets.radiographs.datamodule import epoch_seed
from cxr_serving.model.atomic import write_file
from cxr_serving.model.bundle import CHECKPOINT_FILE, HISTORY_FILE

_LINES = 25


class DivergedError(TrainingError):
    """The loss is not finite: repeating the training would not help."""


@contextmanager
def locked(plan: Plan, progress: Progress) -> Iterator[None]:
    """Hold the training's lock, so that it runs only once at a time; waits for other processes.

    The lock is reentrant. Check the state of the training after acquiring it, not before.

    Raises:
        TrainingError: the lock cannot be written.
    """
    lock = FileLock(plan.lock, is_singleton=True)
    with writing(plan.lock):
        acquire(lock, "the same training runs", progress)
    try:
        yield
    finally:
        # Only the holder may remove the file: a waiting process notices that it is gone.
        if lock.lock_counter == 1 and not plan.work.exists():
            plan.lock.unlink(missing_ok=True)
        lock.release()


def fit(
    plan: Plan,
    progress: Progress,
    logger: Logger | None = None,
    force: bool = False,
    saved: Callable[[], None] = lambda: None,
) -> None:
    """Train until done; resume an interrupted run of the same fingerprint.

    SIGINT and SIGTERM stop it after the optimiser's next step, with its state on disk, and are then
    passed to their handlers; the next call resumes from the batch after it. After a kill, the next
    call resumes from the last finished epoch. Nothing is done if the training is settled already.

    Args:
        plan: what to train.
        progress: called with one line per epoch.
        logger: for the curves; the bundle records its run.
        force: train even if the training is settled; an unfinished fit is still resumed.
        saved: called after each checkpoint that a training resumes from.

    Raises:
        DivergedError: the loss is not finite.
        TrainingError: the work folder cannot be written.
    """
    with locked(plan, progress):
        if force and (plan.work / FINISHED_FILE).exists():
            plan.discard()
        elif not force and (settled := plan.settled()):
            progress(settled)
            return
        with writing(plan.work):
            plan.set_aside_broken(progress)
            plan.work.mkdir(parents=True, exist_ok=True)
            for leftover in plan.work.glob(".*"):
                leftover.unlink()  # from an interrupted write
            checkpoint = resumable(plan.work, progress)
        if checkpoint is not None:
            progress(f"resuming from {checkpoint}")
        train = partial(_train, plan, checkpoint)
        if plan.recipe.devices == 1:
            history = train(progress, logger, saved)
        else:
            # Not needed otherwise.
            from cxr_assets.learning import distributed

            history = distributed.run(train, plan.recipe.devices, progress, logger, saved)
        run_id = logger.version if logger else None
        with writing(plan.work):
            write_file(plan.work / HISTORY_FILE, history.to_csv(index=False).encode())
            plan.finish(run_id)


# One line per epoch is enough: silence the libraries.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")
warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
disable_progress_bar()


def _train(
    plan: Plan,
    checkpoint: Path | None,
    progress: Progress,
    logger: Logger | None,
    saved: Callable[[], None],
    strategy: Strategy | str = "auto",
) -> pd.DataFrame:
    keep_freed_memory()
    L.seed_everything(plan.experiment.seed, verbose=False)
    module, datamodule = plan.recipe.prepare(plan.network, plan.layout, progress)
    if torch.cuda.is_available():
        module.network.base_model.compile()  # what training and validation both run
    history = _History(plan.experiment.seed, progress)
    signals = Signals()
    callbacks: list[L.Callback] = [
        *plan.recipe.callbacks(),
        history,
        _Kept(
            plan.work,
            filename=CHECKPOINT_FILE.removesuffix(".ckpt"),
            monitor=MONITOR,
            mode="max",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        _Kept(
            plan.work,
            filename=LAST_FILE.removesuffix(".ckpt"),
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        _Patience(
            MONITOR, mode="max", patience=plan.recipe.patience, check_on_train_epoch_end=True
        ),
        Interruption(plan.work / LAST_FILE, signals),
    ]
    in_terminal = sys.stderr is not None and sys.stderr.isatty()
    if in_terminal:
        callbacks.append(TQDMProgressBar())
    trainer = L.Trainer(
        accelerator="auto",
        devices=plan.recipe.devices,
        strategy=strategy,
        use_distributed_sampler=False,
        precision="bf16-mixed" if in_bf16(plan.recipe.precision) else "32-true",
        max_epochs=plan.recipe.max_epochs,
        accumulate_grad_batches=plan.recipe.accumulate,
        deterministic="warn" if plan.experiment.deterministic else False,
        callbacks=callbacks,
        plugins=[WholeCheckpoints(saved)],
        logger=logger or False,
        enable_progress_bar=in_terminal,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=plan.work,
    )
    with signals.handed_on():
        trainer.fit(
            module,
            datamodule=datamodule,
            ckpt_path=checkpoint,
            weights_only=True,
        )
    return history.table()


def in_bf16(precision: Precision) -> bool:
    """Whether a training computes in bfloat16 on this machine."""
    if precision == "auto":
        # A CPU without bfloat16 units is slower in bfloat16 than in float32.
        return torch.cuda.is_available()
    return precision == "bf16"


class _Kept(ModelCheckpoint):
    """Knows the best epoch, when resuming, also if the work folder lies elsewhere than before."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            return path and str(folder / Path(path).name)

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": {here(p): s for p, s in state_dict["best_k_models"].items()},
                **{name: here(state_dict[name]) for name in paths},
            }
        )


class _Patience(EarlyStopping):
    """Early stopping that knows, when resuming, whether patience had run out."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class _History(L.Callback):
    """One row per epoch, and a progress line, unless there are very many epochs.

    It is part of the checkpoint: a resumed run has no gap, and an interrupted epoch has the mean
    training loss of all its batches.

    It also seeds every epoch by its number, so that a resumed run draws the same random numbers as
    an uninterrupted one.
    """

    def __init__(self, seed: int, progress: Progress) -> None:
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
        seconds, joules = self._spent()
        return {
            "rows": self._rows,
            "losses": self._losses,
            "images": self._images,
            "seconds": seconds,
            "joules": joules,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
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
        return pd.DataFrame(self._rows)
