"""Trainings as MLflow has them."""

from dataclasses import dataclass

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from cxr_assets.store import EXPERIMENT


@dataclass(frozen=True)
class Tracked:
    """A training in MLflow.

    Attributes:
        status: of its run.
        metrics: names of its curves.
        epochs: those with a training loss, in order; 0 is the first.
    """

    status: str
    metrics: frozenset[str]
    epochs: list[int]


def trainings(uri: str, asset: str) -> list[Tracked]:
    """All trainings of a model, the oldest first; one that was resumed is another one.

    Args:
        uri: of the store.
        asset: of the model.
    """
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:  # nothing was ever run
        return []
    runs = client.search_runs(
        [experiment.experiment_id],
        f"attributes.run_name = '{asset}'",
        order_by=["attributes.start_time"],
    )
    return [
        Tracked(run.info.status, frozenset(run.data.metrics), _epochs(client, run)) for run in runs
    ]


def _epochs(client: MlflowClient, run: Run) -> list[int]:
    epochs, losses = (
        client.get_metric_history(run.info.run_id, name) for name in ("epoch", "train_loss")
    )
    by_step = {point.step: int(point.value) for point in epochs}
    return [by_step[step] for step in sorted({point.step for point in losses})]
