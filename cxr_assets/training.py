"""A training from images to bundle, and its fit in an MLflow run of its own."""

from pathlib import Path
from typing import TYPE_CHECKING

from cxr_assets import exchange, handover, tracking
from cxr_assets.experiment import Experiment
from cxr_assets.forgetting import forget_absent
from cxr_assets.layout import Layout
from cxr_assets.learning.base_weights import PretrainedError
from cxr_assets.learning.export import ExportError, export
from cxr_assets.learning.lock import TrainingError, locked
from cxr_assets.learning.plan import Plan
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.progress import Progress, StorageError
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.dataset import DatasetError
from cxr_assets.radiographs.preparation import PreparationError, prepare
from cxr_assets.radiographs.withdrawal import WithdrawalError
from cxr_serving.model.bundle import CHECKPOINT_FILE, BundleError

if TYPE_CHECKING:
    from cxr_assets.learning.fit import Engine

ASSET = "convnext_model"

# Their messages suffice; for any other error the traceback is shown, too.
EXPLAINED = (
    *(raw.RawDataError, WithdrawalError, PreparationError, DatasetError),
    *(PretrainedError, TrainingError, tracking.TrackingError, ExportError, BundleError),
    StorageError,
)


def train(experiment: Experiment, layout: Layout, progress: Progress) -> Path:
    """Prepare the images, fit the main model and publish its bundle, or reuse what exists.

    ``latest.json`` is not changed: no service loads the model, and no report covers it.

    Returns:
        The bundle's directory.

    Raises:
        RawDataError, PreparationError: the images cannot be fetched or prepared.
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


def fit(
    plan: Plan, progress: Progress, force: bool = False, engine: "Engine | None" = None
) -> None:
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
        # Here, because Lightning takes seconds to import.
        from cxr_assets.curves import Curves
        from cxr_assets.learning.fit import fit as untracked_fit

        settings = plan.experiment.model_dump()
        # The server may be shared, and paths may name people.
        settings["data"] = plan.experiment.data.without_places().model_dump()
        with tracking.training_run(plan.asset, settings) as run:
            run.set_tags(
                {"fingerprint": plan.fingerprint, "data_version": plan.dataset.data_version}
            )
            untracked_fit(plan, progress, Curves(run), force, saved, engine)
            run.log_artifact(plan.work / CHECKPOINT_FILE)
