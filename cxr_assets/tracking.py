"""MLflow: a run for each Dagster run or sweep, and one nested in it for each training.

Training continues when tracking fails, unless ``tracking.required`` is set.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from cxr_assets.layout import Layout
from cxr_assets.learning.fit import fit as untracked_fit
from cxr_assets.learning.fit import locked
from cxr_assets.learning.plan import Plan
from cxr_assets.liveness import Lock
from cxr_assets.progress import Progress
from cxr_assets.store import EXPERIMENT as EXPERIMENT
from cxr_assets.store import Store
from cxr_assets.witness import TrackingError as TrackingError
from cxr_assets.witness import Witness
from cxr_serving.model.bundle import CHECKPOINT_FILE

_PARAMETERS_AT_ONCE = 100  # MLflow's limit
_LONGEST_PARAMETER = 500


@dataclass
class _Session:
    """The tracking state of this process.

    Attributes:
        store: the MLflow store.
        witness: delivers records to the store.
        running: runs that have started and not ended, the outermost first.
    """

    store: Store
    witness: Witness
    running: list["Run"] = field(default_factory=list)


_session: _Session | None = None


def open_store(uri: str | None, layout: Layout, report: Progress, required: bool = False) -> str:
    """Connect to the store; if it is out of reach, runs continue without it.

    Args:
        uri: of a tracking server; None for a SQLite file below the data root.
        layout: where that file and its artifacts lie.
        report: called with a line when the store is lost, is back, or has lost records.
        required: whether a store that is out of reach is an error.

    Returns:
        The tracking URI.

    Raises:
        TrackingError: it is out of reach, and it is required.
    """
    global _session
    store = Store(uri, layout)
    _session = _Session(store, Witness(f"MLflow ({store.uri})", store.reach, report, required))
    _session.witness.reach()
    return store.uri


def close(status: str) -> None:
    """End all runs, deliver pending records, and report what is lost.

    Args:
        status: for the runs that have not ended: FINISHED, FAILED or KILLED.

    Raises:
        TrackingError: the store rejects the status, and it is required.
    """
    if _session is not None:
        try:
            while _session.running:
                _session.running[-1].end(status)
        finally:
            _session.witness.close()


class Run:
    """An MLflow run. A record reaches the store now or later, or is reported as lost; its time is
    that of the logging call.

    Attributes:
        id: None until the store has created the run.
    """

    def __init__(self, session: _Session, name: str, create: Callable[[], str] | None) -> None:
        self.id: str | None = None
        self._name = name
        self._session = session
        self._lock: Lock | None = None
        parent = session.running[-1] if session.running else None
        session.running.append(self)
        started = _now()
        tags = resolve_tags()

        def begin() -> None:
            nested = {MLFLOW_PARENT_RUN_ID: parent.id} if parent and parent.id else {}
            store = session.store
            if create is None:
                run = store.client.create_run(
                    store.experiment_id, started, {**tags, **nested}, run_name=name
                )
                self.id = run.info.run_id
            else:
                self.id = create()
            self._lock = store.lock(self.id)

        session.witness.record(f"the run {name}", begin)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one point of each curve."""
        now = _now()
        points = [Metric(key, float(value), now, step or 0) for key, value in metrics.items()]
        self._record("metrics", lambda run: self._client.log_batch(run, metrics=points))

    def log_params(self, parameters: Mapping[str, Any]) -> None:
        """Log settings, nested or flat; a long value is truncated."""
        flat = [Param(k, v[:_LONGEST_PARAMETER]) for k, v in _flatten(parameters).items()]

        def pass_on(run: str) -> None:
            for start in range(0, len(flat), _PARAMETERS_AT_ONCE):
                self._client.log_batch(run, params=flat[start : start + _PARAMETERS_AT_ONCE])

        self._record("parameters", pass_on)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        some = [RunTag(key, value) for key, value in tags.items()]
        self._record("tags", lambda run: self._client.log_batch(run, tags=some))

    def log_artifact(self, path: Path) -> None:
        """Store a file with the run."""
        self._record(path.name, lambda run: self._client.log_artifact(run, str(path)))

    def end(self, status: str) -> None:
        """End the run with the status FINISHED, FAILED or KILLED."""
        self._session.running.remove(self)
        now = _now()
        if self._lock is not None:
            self._session.store.ended(self._lock, status, now)

        def pass_on(run: str) -> None:
            self._client.set_terminated(run, status, now)
            if self._lock is not None:
                self._lock.release()

        self._record("end", pass_on)

    @property
    def _client(self) -> Any:
        return self._session.store.client

    def _record(self, what: str, pass_on: Callable[[str], None]) -> None:
        def named() -> None:
            if self.id is None:
                raise MlflowException(f"the store does not know the run {self._name}")
            pass_on(self.id)

        self._session.witness.record(f"{what} of the run {self._name}", named)


class Curves(Logger):
    """A Lightning logger that writes to an MLflow run."""

    def __init__(self, run: Run) -> None:
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
        self._run._session.witness.deliver()


def start_run(name: str, create: Callable[[], str] | None = None) -> Run:
    """Start a run, nested in the current one, if any.

    Args:
        name: of the run.
        create: creates the run in the store once that is reachable, and returns its id; None to
            create it here.

    Raises:
        TrackingError: the store rejects it, and it is required.
    """
    if _session is None:
        raise RuntimeError("open_store comes first")
    return Run(_session, name, create)


@contextmanager
def training_run(name: str, parameters: Mapping[str, Any]) -> Iterator[Run]:
    """A run that ends as FINISHED, FAILED or KILLED, as its body does.

    Args:
        name: of the run.
        parameters: settings, nested as they are in the experiment.

    Raises:
        TrackingError: the store rejects it, and it is required.
    """
    run = start_run(name)
    status = "KILLED"
    try:
        run.log_params(parameters)
        yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        run.end(status)


def fit(plan: Plan, progress: Progress, force: bool = False) -> None:
    """Fit in an MLflow run of its own, unless there is nothing to train.

    Args:
        plan: what to train.
        progress: called with one line per epoch.
        force: train even if the result exists already.

    Raises:
        TrainingError: see :func:`cxr_assets.learning.fit.fit`.
        TrackingError: the store rejects a record, and it is required.
    """
    with locked(plan, progress):
        if not force and (settled := plan.settled()):
            progress(f"{plan.asset}: {settled}")
            return
        settings = plan.experiment.model_dump()
        # The server may be shared, and paths may name people.
        settings["data"] = plan.experiment.data.without_places().model_dump()
        with training_run(plan.asset, settings) as run:
            run.set_tags(
                {"fingerprint": plan.fingerprint, "data_version": plan.dataset.data_version}
            )
            untracked_fit(plan, progress, Curves(run), force)
            run.log_artifact(plan.work / CHECKPOINT_FILE)


def end_dead_runs(uri: str | None, layout: Layout) -> None:
    """End the runs in the store whose process was killed.

    Raises:
        Exception: whatever MLflow, the network or the database raises if the store does not answer.
    """
    store = Store(uri, layout)
    if store.has_dead_runs:
        store.reach()


def _now() -> int:
    return int(time.time() * 1000)


def _flatten(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
