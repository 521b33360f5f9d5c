"""Training in a work folder; an interrupted training is resumed."""

import logging
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.strategies import Strategy
from transformers.utils.logging import disable_progress_bar

from cxr_assets.groups import Precision
from cxr_assets.learning.allocator import keep_freed_memory
from cxr_assets.learning.checkpoints import (
    LAST_FILE,
    Kept,
    WholeCheckpoints,
    resumable,
)
from cxr_assets.learning.history import History
from cxr_assets.learning.interruption import Interruption, Signals
from cxr_assets.learning.lock import locked, writing
from cxr_assets.learning.module import MONITOR
from cxr_assets.learning.plan import FINISHED_FILE, Plan
from cxr_assets.progress import Progress
from cxr_serving.model.atomic import write_file
from cxr_serving.model.bundle import CHECKPOINT_FILE, HISTORY_FILE

# Runs a training in several processes: as :func:`cxr_assets.learning.distributed.run` does.
Engine = Callable[
    [Callable[..., pd.DataFrame], int, Progress, Logger | None, Callable[[], None]], pd.DataFrame
]


def fit(
    plan: Plan,
    progress: Progress,
    logger: Logger | None = None,
    force: bool = False,
    saved: Callable[[], None] = lambda: None,
    engine: Engine | None = None,
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
        engine: runs it elsewhere than on this machine.

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
        if engine is not None:
            history = engine(train, plan.recipe.devices, progress, logger, saved)
        elif plan.recipe.devices == 1:
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
    devices: int = 1,
) -> pd.DataFrame:
    keep_freed_memory()
    L.seed_everything(plan.experiment.seed, verbose=False)
    module, datamodule = plan.recipe.prepare(plan.network, plan.layout, progress)
    if torch.cuda.is_available():
        module.network.base_model.compile()  # what training and validation both run
    history = History(plan.experiment.seed, progress)
    signals = Signals()
    callbacks: list[L.Callback] = [
        *plan.recipe.callbacks(),
        history,
        Kept(
            plan.work,
            filename=CHECKPOINT_FILE.removesuffix(".ckpt"),
            monitor=MONITOR,
            mode="max",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        Kept(
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
        devices=devices,
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


class _Patience(EarlyStopping):
    """Early stopping that knows, when resuming, whether patience had run out."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True
