"""The curves of a training, in MLflow."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from cxr_assets import tracking
from cxr_assets.store import EXPERIMENT


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
