"""MLflow: a run for each Dagster run or sweep, and one nested in it for each training.

Training continues when tracking fails, unless ``tracking.required`` is set.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_assets import liveness
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_assets.witness import TrackingError as TrackingError
from cxr_assets.witness import Witness

if TYPE_CHECKING:
    from cxr_assets.store import Store


@dataclass
class _Session:
    """The tracking state of this process.

    Attributes:
        store: the MLflow store.
        witness: delivers records to the store.
        outer: id of the run of another process that the outermost one is nested in, if any.
        running: runs that have started and not ended, the outermost first.
    """

    store: "Store"
    witness: Witness
    outer: str | None
    running: list["Run"] = field(default_factory=list)


_session: _Session | None = None


def open_store(
    uri: str | None,
    layout: Layout,
    report: Progress,
    required: bool = False,
    outer: str | None = None,
) -> str:
    """Connect to the store; if it is out of reach, runs continue without it.

    Args:
        uri: of a tracking server; None for a SQLite file below the data root.
        layout: where that file and its artifacts lie.
        report: called with a line when the store is lost, is back, or has lost records.
        required: whether a store that is out of reach is an error.
        outer: id of a run of another process, which those of this process are nested in.

    Returns:
        The tracking URI.

    Raises:
        TrackingError: it is out of reach, and it is required.
    """
    global _session
    from cxr_assets.store import Store

    store = Store(uri, layout)
    witness = Witness(f"MLflow ({store.uri})", store.reach, report, required)
    _session = _Session(store, witness, outer)
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

    def __init__(
        self, session: _Session, name: str, create: Callable[[], str] | None, ours: bool
    ) -> None:
        self.id: str | None = None
        self._name = name
        self._session = session
        self._ours = ours
        self._lock: liveness.Lock | None = None
        above = session.running[-1] if session.running else None
        session.running.append(self)
        started = _now()

        def begin() -> None:
            store = session.store
            if create is None:
                self.id = store.create_run(name, started, above.id if above else session.outer)
            else:
                self.id = create()
            if ours:
                self._lock = store.lock(self.id)

        session.witness.record(f"the run {name}", begin)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one point of each curve."""
        now, values = _now(), {name: float(value) for name, value in metrics.items()}
        self._record("metrics", lambda run: self._store.log_metrics(run, values, now, step or 0))

    def log_params(self, parameters: Mapping[str, Any]) -> None:
        """Log settings, nested or flat; a long value is truncated."""
        flat = _flatten(parameters)
        self._record("parameters", lambda run: self._store.log_params(run, flat))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        some = dict(tags)
        self._record("tags", lambda run: self._store.set_tags(run, some))

    def log_artifact(self, path: Path) -> None:
        """Store a file with the run."""
        self._record(path.name, lambda run: self._store.log_artifact(run, path))

    def deliver(self) -> None:
        """Try again to pass on what the store missed while it was out of reach."""
        self._session.witness.deliver()

    def end(self, status: str) -> None:
        """End the run with the status FINISHED, FAILED or KILLED, unless another process does."""
        self._session.running.remove(self)
        if not self._ours:
            return
        now = _now()
        if self._lock is not None:
            self._store.ended(self._lock, status, now)

        def pass_on(run: str) -> None:
            self._store.end_run(run, status, now)
            if self._lock is not None:
                self._lock.release()

        self._record("end", pass_on)

    @property
    def uri(self) -> str | None:
        """That :func:`open_store` was called with."""
        return self._store.given

    @property
    def _store(self) -> "Store":
        return self._session.store

    def _record(self, what: str, pass_on: Callable[[str], None]) -> None:
        def named() -> None:
            if self.id is None:
                raise LookupError(f"the store does not know the run {self._name}")
            pass_on(self.id)

        self._session.witness.record(f"{what} of the run {self._name}", named)


def start_run(name: str, create: Callable[[], str] | None = None, ours: bool = True) -> Run:
    """Start a run, nested in the current one, if any.

    Args:
        name: of the run.
        create: creates the run in the store once that is reachable, and returns its id; None to
            create it here.
        ours: whether this process ends it. Otherwise another one holds its lock and ends it.

    Raises:
        TrackingError: the store rejects it, and it is required.
    """
    if _session is None:
        raise RuntimeError("open_store comes first")
    return Run(_session, name, create, ours)


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


def end_dead_runs(uri: str | None, layout: Layout) -> None:
    """End the runs in the store whose process was killed.

    Raises:
        Exception: whatever MLflow, the network or the database raises if the store does not answer.
    """
    if any(note.get("uri") == uri for _, note in liveness.dead(layout.mlflow_running)):
        from cxr_assets.store import Store

        Store(uri, layout).reach()


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
