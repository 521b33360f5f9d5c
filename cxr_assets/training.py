"""A training from images to bundle, and its fit in an MLflow run of its own."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from cxr_assets import exchange, handover, tracking
from cxr_assets.experiment import Experiment
from cxr_assets.forgetting import forget_absent
from cxr_assets.layout import Layout
from cxr_assets.learning.base_weights import PretrainedError
from cxr_assets.learning.checkpoints import TrainingError
from cxr_assets.learning.export import ExportError, export
from cxr_assets.learning.fit import Engine, locked
from cxr_assets.learning.fit import fit as untracked_fit
from cxr_assets.learning.plan import Plan
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.progress import Progress, StorageError
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.dataset import DatasetError
from cxr_assets.radiographs.kaggle import KaggleError
from cxr_assets.radiographs.preparation import PreparationError, prepare
from cxr_assets.radiographs.withdrawal import WithdrawalError
from cxr_assets.store import EXPERIMENT
from cxr_serving.model.bundle import CHECKPOINT_FILE, BundleError

ASSET = "convnext_model"

# Their messages suffice; for any other error the traceback is shown, too.
EXPLAINED = (
    *(KaggleError, raw.RawDataError, WithdrawalError, PreparationError, DatasetError),
    *(PretrainedError, TrainingError, tracking.TrackingError, ExportError, BundleError),
    StorageError,
)


def train(experiment: Experiment, layout: Layout, progress: Progress) -> Path:
    """Prepare the images, fit the main model and publish its bundle, or reuse what exists.

    ``latest.json`` is not changed: no service loads the model, and no report covers it.

    Returns:
        The bundle's directory.

    Raises:
        KaggleError, RawDataError, PreparationError: the images cannot be fetched or prepared.
        PretrainedError: the base weights cannot be loaded.
        TrainingError: the loss is not finite, or the work folder cannot be written.
        TrackingError: MLflow rejects a record, and it is required.
    """
    exchange.pull(layout, progress)
    images = raw.collect(experiment.data, experiment.classes, layout, progress)
    prepare(layout, images, experiment.data, experiment.classes, progress)
    with exchange.exchanged(layout, progress):
        forget_absent(layout, progress)
    plan = make_plan(ASSET, experiment, layout)
    fit(plan, progress)
    with exchange.exchanged(layout, progress):
        directory, _ = export(plan, point=False, progress=progress)
    handover.ended(layout, plan.work)
    return directory


class Curves(Logger):
    """A Lightning logger that writes to an MLflow run."""

    def __init__(self, run: tracking.Run) -> None:
        super().__init__()
        self._run = run

    @property
    def name(self) -> str:
        """Name of the MLflow experiment."""
        return EXPERIMENT

    @property
    def version(self) -> str | None:
        """Id of the MLflow run; None until the store has created it."""
        return self._run.id

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one point of each curve."""
        self._run.log_metrics(metrics, step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *more: Any, **rest: Any) -> None:
        """Log the hyperparameters of the Lightning module."""
        self._run.log_params(vars(params) if isinstance(params, Namespace) else params)

    def finalize(self, status: str) -> None:
        """Deliver pending records at the end of the training."""
        self._run.deliver()


def fit(plan: Plan, progress: Progress, force: bool = False, engine: Engine | None = None) -> None:
    """Fit in an MLflow run of its own, unless there is nothing to train.

    Args:
        plan: what to train.
        progress: called with one line per epoch.
        force: train even if the result exists already.
        engine: runs the training elsewhere than on this machine.

    Raises:
        TrainingError: see :func:`cxr_assets.learning.fit.fit`.
        TrackingError: the store rejects a record, and it is required.
    """
    with handover.resumed(plan.layout, plan.work, progress) as saved, locked(plan, progress):
        if not force and (settled := plan.settled()):
            progress(f"{plan.asset}: {settled}")
            return
        settings = plan.experiment.model_dump()
        # The server may be shared, and paths may name people.
        settings["data"] = plan.experiment.data.without_places().model_dump()
        with tracking.training_run(plan.asset, settings) as run:
            run.set_tags(
                {"fingerprint": plan.fingerprint, "data_version": plan.dataset.data_version}
            )
            untracked_fit(plan, progress, Curves(run), force, saved, engine)
            run.log_artifact(plan.work / CHECKPOINT_FILE)
