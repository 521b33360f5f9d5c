"""MLflow: the store, and one nested run for each training."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import mlflow
from lightning.pytorch.loggers import MLFlowLogger
from sqlalchemy.engine import URL

from cxr_assets.layout import Layout
from cxr_assets.learning.fit import fit as untracked_fit
from cxr_assets.learning.fit import locked
from cxr_assets.learning.plan import Plan
from cxr_assets.learning.recipe import Progress
from cxr_serving.bundle import CHECKPOINT_FILE

EXPERIMENT = "cxr-retraining"


def open_store(uri: str | None, layout: Layout) -> str:
    """Make sure that store and experiment exist, and use them.

    Args:
        uri: of a tracking server; None for a SQLite file below the data root.
        layout: where that file and its artifacts lie.

    Returns:
        The tracking URI.
    """
    location = None
    if uri is None:
        layout.mlflow_database.parent.mkdir(parents=True, exist_ok=True)
        # Written out by the library: a data root may hold characters that an address escapes.
        address = URL.create("sqlite", database=str(layout.mlflow_database))
        uri = address.render_as_string(hide_password=False)
        location = layout.mlflow_artifacts.as_uri()
    mlflow.set_tracking_uri(uri)
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        mlflow.create_experiment(EXPERIMENT, artifact_location=location)
    mlflow.set_experiment(EXPERIMENT)
    return uri


class Curves(MLFlowLogger):
    """Lightning's MLflow logger, writing in a thread of its own.

    An interrupt, which reaches the main thread alone, then never cuts a write to the store short:
    that would leave its SQLite file locked, and the run could not even be ended.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(EXPERIMENT, tracking_uri=mlflow.get_tracking_uri(), run_id=run_id)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one point of every curve."""
        self._writer.submit(super().log_metrics, metrics, step).result()

    def finalize(self, status: str = "success") -> None:
        """Write what is left, after all that was begun."""
        self._writer.submit(super().finalize, status).result()


@contextmanager
def training_run(name: str, parameters: Mapping[str, Any]) -> Iterator[Curves]:
    """Nested MLflow run for one training; it ends FINISHED, FAILED or KILLED as the training does.

    Args:
        name: of the run.
        parameters: settings, nested as they are in the experiment.

    Yields:
        The Lightning logger that writes to it.
    """
    run = mlflow.start_run(run_name=name, nested=True)
    status = "KILLED"
    try:
        mlflow.log_params(_flatten(parameters))
        yield Curves(run.info.run_id)
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        mlflow.end_run(status)


def fit(plan: Plan, progress: Progress, force: bool = False) -> None:
    """Fit in an MLflow run of its own, unless there is nothing to train.

    Args:
        plan: what to train.
        progress: called with one line an epoch.
        force: train also when the training is settled.

    Raises:
        TrainingError: see :func:`cxr_assets.learning.fit.fit`.
    """
    with locked(plan, progress):
        if not force and (settled := plan.settled()):
            progress(f"{plan.asset}: {settled}")
            return
        with training_run(plan.asset, plan.experiment.model_dump()) as logger:
            mlflow.set_tags(
                {"fingerprint": plan.fingerprint, "data_version": plan.dataset.data_version}
            )
            untracked_fit(plan, progress, logger, force)
            mlflow.log_artifact(str(plan.work / CHECKPOINT_FILE))


def _flatten(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
