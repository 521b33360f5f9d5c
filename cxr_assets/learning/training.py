"""Training of both models: planned by fingerprint, fitted in a work folder, exported as bundle."""

import json
import logging
import math
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pandas as pd
import torch
from filelock import FileLock
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import MLFlowLogger
from transformers.utils.logging import disable_progress_bar

from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.learning import networks
from cxr_assets.learning.module import MONITOR, Classifier
from cxr_assets.learning.probe import EmbeddingsDataModule, LinearProbe
from cxr_assets.provenance import code_version, fingerprint
from cxr_assets.radiographs.datamodule import FilmsDataModule
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_assets.radiographs.naming import CLASSES
from cxr_serving import bundle
from cxr_serving.bundle import CHECKPOINT_FILE, HISTORY_FILE, BundleRecord
from cxr_serving.preprocessing import Preprocessing

_LAST_FILE = "last.ckpt"
_FINISHED_FILE = "finished.json"
_LINES = 25

Asset = Literal["convnext_model", "dinov2_probe"]
Progress = Callable[[str], None]


class TrainingError(Exception):
    """A training cannot go on or cannot be exported; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """One training, known before it starts.

    Attributes:
        asset: which of the two models.
        experiment: all settings.
        layout: where data lies and bundles go.
        dataset: record of the processed dataset.
        network: transformers configuration.
        weights: identity of the base weights, None for random ones.
        code: digest of the code that shapes the result.
        fingerprint: the same fingerprint means the same training.
    """

    asset: Asset
    experiment: Experiment
    layout: Layout
    dataset: DatasetRecord
    network: dict[str, Any]
    weights: str | None
    code: str
    fingerprint: str

    @property
    def work(self) -> Path:
        """Folder that a crashed run resumes from."""
        return self.layout.work(self.fingerprint)

    @property
    def lock(self) -> Path:
        """Held while this training runs, so that it never runs twice at once."""
        return self.work.with_suffix(".lock")

    @property
    def bundles(self) -> Path:
        """Folder of the asset's bundles."""
        return self.layout.models(self.asset)

    @property
    def finished(self) -> bool:
        """Whether a finished fit waits for its export."""
        return (self.work / _FINISHED_FILE).exists()

    def published(self) -> Path | None:
        """The newest bundle that this very training made, if any."""
        return bundle.find(self.bundles, self.fingerprint)


def plan(asset: Asset, experiment: Experiment, layout: Layout) -> Plan:
    """Work out what a training would be, without training.

    Raises:
        DatasetError: there is no processed dataset.
        PretrainedError: base weights cannot be had.
    """
    dataset = DatasetRecord.read(layout.processed)
    if asset == "convnext_model":
        base = (experiment.model.pretrained, experiment.model.revision)
        network = networks.convnext_config(experiment.model, dataset.image_size, CLASSES)
        settings = experiment.trainer.model_dump()
    else:
        base = (experiment.probe.pretrained, experiment.probe.revision)
        network = networks.dinov2_config(experiment.probe, dataset.image_size, CLASSES)
        settings = experiment.probe.model_dump(
            include={"max_epochs", "batch_size", "lr", "weight_decay"}
        )
    for key in ("_name_or_path", "transformers_version"):
        network.pop(key, None)
    weights = networks.identity(*base)
    code = code_version(
        "cxr_assets.learning",
        "cxr_assets.radiographs.augmentation",
        "cxr_assets.radiographs.datamodule",
        "cxr_serving.preprocessing",
    )
    identity = fingerprint(
        {
            "asset": asset,
            "data": dataset.data_version,
            "network": network,
            "weights": weights,
            "settings": settings,
            "seed": experiment.seed,
            "deterministic": experiment.deterministic,
            "code": code,
        }
    )
    return Plan(asset, experiment, layout, dataset, network, weights, code, identity)


def settled(plan: Plan) -> str | None:
    """Why nothing needs to be trained, or None.

    Returns:
        ``reused <version>`` when a bundle of this fingerprint is published, or a word on the
        finished fit that waits for its export.
    """
    if plan.finished:
        return f"a finished fit in {plan.work} waits for its export"
    published = plan.published()
    return f"reused {published.name}" if published else None


def discard(plan: Plan) -> None:
    """Forget an unfinished or unexported fit, so that the next one starts anew."""
    if plan.work.exists():
        shutil.rmtree(plan.work)
    plan.lock.unlink(missing_ok=True)


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
        (plan.work / _FINISHED_FILE).write_text(json.dumps({"mlflow_run_id": run_id}))


def export(plan: Plan, dagster_run_id: str | None = None) -> tuple[Path, bool]:
    """Publish a finished fit as a bundle, or find the one that was published before.

    Returns:
        The bundle's directory, and whether it was published now.

    Raises:
        TrainingError: there is neither a finished fit nor a bundle of this fingerprint.
    """
    if not plan.finished:
        published = plan.published()
        if published is None:
            raise TrainingError(
                f"no finished fit of {plan.asset} in {plan.work} and no bundle of fingerprint "
                f"{plan.fingerprint[:8]} in {plan.bundles}: run the fit first (settings, data or "
                "code have changed since)"
            )
        bundle.write_pointer(plan.bundles, published.name)
        return published, False
    history = pd.read_csv(plan.work / HISTORY_FILE)
    best = history.loc[history[MONITOR].idxmax()]
    now = datetime.now(UTC)
    record = BundleRecord(
        asset=plan.asset,
        version=bundle.new_version(plan.fingerprint, now),
        fingerprint=plan.fingerprint,
        classes=CLASSES,
        input_size=plan.dataset.image_size,
        created_at=now,
        data_version=plan.dataset.data_version,
        code_version=plan.code,
        seed=plan.experiment.seed,
        pretrained=plan.weights,
        synthetic=plan.dataset.synthetic,
        validation={
            name.removeprefix("val_"): float(best[name])
            for name in ("val_loss", "val_accuracy", "val_macro_f1", "val_auroc")
        },
        dagster_run_id=dagster_run_id,
        mlflow_run_id=json.loads((plan.work / _FINISHED_FILE).read_text())["mlflow_run_id"],
    )

    def write(directory: Path) -> None:
        module = _module_class(plan.asset).load_from_checkpoint(
            plan.work / CHECKPOINT_FILE, map_location="cpu", weights_only=True
        )
        module.network.save_pretrained(directory)
        Preprocessing(plan.dataset.image_size).write(directory)
        for name in (CHECKPOINT_FILE, HISTORY_FILE):
            shutil.copyfile(plan.work / name, directory / name)

    directory = bundle.publish(plan.bundles, record, write)
    discard(plan)
    return directory, True


# One line an epoch is what is worth reading; the libraries' own chatter is not.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")
disable_progress_bar()


def _train(plan: Plan, progress: Progress, logger: MLFlowLogger | None) -> None:
    L.seed_everything(plan.experiment.seed, verbose=False)
    module, datamodule = _prepare(plan, progress)
    history = _History(plan.experiment.seed, progress)
    if plan.asset == "convnext_model":
        settings = plan.experiment.trainer
        epochs, patience = settings.max_epochs, settings.patience
    else:
        epochs = patience = plan.experiment.probe.max_epochs
    callbacks: list[L.Callback] = [
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
        EarlyStopping(MONITOR, mode="max", patience=patience, check_on_train_epoch_end=True),
    ]
    in_terminal = sys.stderr.isatty()
    if in_terminal:
        callbacks.append(TQDMProgressBar())
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=epochs,
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


def _prepare(plan: Plan, progress: Progress) -> tuple[Classifier, L.LightningDataModule]:
    experiment = plan.experiment
    films = FilmsDataModule(
        plan.layout.processed,
        batch_size=experiment.trainer.batch_size,
        seed=experiment.seed,
        augmentation=experiment.trainer.augmentation,
    )
    if plan.asset == "convnext_model":
        module = Classifier(
            model_name=experiment.model.name,
            num_classes=len(CLASSES),
            network=plan.network,
            lr=experiment.trainer.lr,
            weight_decay=experiment.trainer.weight_decay,
            warmup_epochs=experiment.trainer.warmup_epochs,
            label_smoothing=experiment.trainer.label_smoothing,
            class_weights=_balanced(films.films("train").labels),
        )
        if experiment.model.pretrained is not None:
            networks.load_pretrained(
                module.network, experiment.model.pretrained, experiment.model.revision
            )
        return module, films
    probe = LinearProbe(
        model_name=experiment.probe.name,
        num_classes=len(CLASSES),
        network=plan.network,
        lr=experiment.probe.lr,
        weight_decay=experiment.probe.weight_decay,
        warmup_epochs=0.0,
        label_smoothing=0.0,
        class_weights=_balanced(films.films("train").labels),
    )
    if experiment.probe.pretrained is not None:
        networks.load_pretrained(
            probe.network, experiment.probe.pretrained, experiment.probe.revision
        )
    batch_size = experiment.probe.batch_size
    return probe, EmbeddingsDataModule(probe, films, batch_size, experiment.seed, progress)


def _balanced(labels: torch.Tensor) -> list[float]:
    """Weights inversely proportional to class frequency, 1 on average over the films."""
    counts = torch.bincount(labels, minlength=len(CLASSES))
    return [float(weight) for weight in len(labels) / (len(CLASSES) * counts)]


def _module_class(asset: Asset) -> type[Classifier]:
    return Classifier if asset == "convnext_model" else LinearProbe


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
