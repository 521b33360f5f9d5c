"""MLflow: the store, and one nested run for each training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlflow
from lightning.pytorch.loggers import MLFlowLogger

from cxr_assets.layout import Layout

EXPERIMENT = "cxr-retraining"


def open_store(uri: str | None, layout: Layout) -> str:
    """Make sure that store and experiment exist.

    Args:
        uri: of a tracking server; None for a SQLite file below the data root.
        layout: where that file and its artifacts lie.

    Returns:
        The tracking URI.
    """
    location = None
    if uri is None:
        layout.mlflow_database.parent.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{layout.mlflow_database}"
        location = layout.mlflow_artifacts.as_uri()
    mlflow.set_tracking_uri(uri)
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        mlflow.create_experiment(EXPERIMENT, artifact_location=location)
    return uri


@contextmanager
def training_run(name: str, parameters: Mapping[str, Any]) -> Iterator[MLFlowLogger]:
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
        yield MLFlowLogger(
            EXPERIMENT, tracking_uri=mlflow.get_tracking_uri(), run_id=run.info.run_id
        )
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        mlflow.end_run(status)


def _flatten(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
