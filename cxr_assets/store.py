"""The MLflow store: its experiment, its artifacts, and runs whose process was killed.

The one module that imports MLflow, which takes seconds.
"""

import logging
import os
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from filelock import FileLock
from mlflow.entities import Experiment, LifecycleStage, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.engine import URL, make_url

from cxr_assets import liveness
from cxr_assets.layout import Layout

_log = logging.getLogger(__name__)

EXPERIMENT = "cxr-retraining"

_PARAMETERS_AT_ONCE = 100  # MLflow's limit
_LONGEST_PARAMETER = 500
_MAKING_SECONDS = 60  # many times what it takes

# MLflow's defaults are 120 s and 7 retries: minutes for every call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


class Store:
    """A tracking server, or a SQLite file below the data root; opened by :meth:`reach`.

    Args:
        uri: of a tracking server; None for the SQLite file.
        layout: where that file, its artifacts and the locks of active runs lie.

    Attributes:
        given: the argument ``uri``.
        uri: the tracking URI.
        client: of the store; set by :meth:`reach`.
        experiment_id: id of the experiment; set by :meth:`reach`.
    """

    client: MlflowClient
    experiment_id: str

    def __init__(self, uri: str | None, layout: Layout) -> None:
        self.given = uri
        self._layout = layout
        self.uri = uri or _address(layout.mlflow_database)

    def reach(self) -> None:
        """Connect, create or restore the experiment, and end the runs whose process is gone.

        A deleted experiment is restored with its runs.

        Raises:
            Exception: whatever MLflow, the network or the database raises if it does not answer.
        """
        artifacts = self._layout.mlflow_artifacts.as_uri()
        location = None
        if self.given is None:
            location = artifacts
            self._make_database(artifacts)
            # Otherwise MLflow records the working directory as the place of artifacts.
            SqlAlchemyStore(self.uri, artifacts)
        self.client = MlflowClient(self.uri)
        experiment = self._experiment(location)
        self.experiment_id = experiment.experiment_id
        if experiment.lifecycle_stage == LifecycleStage.DELETED:
            self.client.restore_experiment(self.experiment_id)
        if location is not None:
            self._relocate(experiment.artifact_location, location)
        self._end_dead_runs()

    def create_run(self, name: str, started: int, parent: str | None) -> str:
        """Create a run, nested in another one if that is known.

        Args:
            name: of the run.
            started: milliseconds since 1970, as all times here.
            parent: id of the other run.

        Returns:
            Its id.
        """
        nested = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
        run = self.client.create_run(
            self.experiment_id, started, {**resolve_tags(), **nested}, run_name=name
        )
        created: str = run.info.run_id
        return created

    def log_metrics(self, run: str, metrics: Mapping[str, float], time: int, step: int) -> None:
        """Log one point of each curve."""
        points = [Metric(name, value, time, step) for name, value in metrics.items()]
        self.client.log_batch(run, metrics=points)

    def log_params(self, run: str, parameters: Mapping[str, str]) -> None:
        """Log settings; a long value is truncated."""
        some = [Param(name, value[:_LONGEST_PARAMETER]) for name, value in parameters.items()]
        for start in range(0, len(some), _PARAMETERS_AT_ONCE):
            self.client.log_batch(run, params=some[start : start + _PARAMETERS_AT_ONCE])

    def set_tags(self, run: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self.client.log_batch(run, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_artifact(self, run: str, path: Path) -> None:
        """Store a file with a run."""
        self.client.log_artifact(run, str(path))

    def end_run(self, run: str, status: str, time: int) -> None:
        """End a run with the status FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run, status, time)

    def lock(self, run_id: str) -> liveness.Lock | None:
        """The lock of a run of this process; None if the file system has no locks."""
        note = {"uri": self.given, "status": "KILLED"}
        try:
            return liveness.Lock(self._layout.mlflow_running / run_id, note)
        except OSError as error:
            _log.warning(
                "no lock for this run (%s): if the process is killed, MLflow shows it as RUNNING",
                error,
            )
            return None

    def ended(self, lock: liveness.Lock, status: str, end_time: int) -> None:
        """Record in the lock how a run ended, in case the store does not receive it."""
        lock.note({"uri": self.given, "status": status, "end_time": end_time})

    def _make_database(self, artifacts: str) -> None:
        """Make the SQLite file if there is none, whole or not at all.

        MLflow makes its tables one by one: two processes at once, or one that is killed, would
        leave a file that no later one can use.
        """
        database = self._layout.mlflow_database
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock", timeout=_MAKING_SECONDS):
            if not database.exists():
                for left in database.parent.glob(f".{database.name}.*"):
                    left.unlink()
                # A name of its own: MLflow keeps connections to files of the same name.
                unfinished = database.with_name(f".{database.name}.{uuid.uuid4().hex}")
                SqlAlchemyStore(_address(unfinished), artifacts).engine.dispose()
                unfinished.rename(database)

    def _experiment(self, location: str | None) -> Experiment:
        """The experiment, made if it is not there; another process may make it meanwhile."""
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            try:
                self.client.create_experiment(EXPERIMENT, location)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
        return experiment

    def _end_dead_runs(self) -> None:
        for lock, note in liveness.dead(self._layout.mlflow_running):
            if note.get("uri") != self.given:
                continue
            try:
                info = self.client.get_run(lock.name).info
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                    raise
            else:
                running = info.status == RunStatus.to_string(RunStatus.RUNNING)
                if running and info.lifecycle_stage == LifecycleStage.ACTIVE:
                    self.client.set_terminated(
                        lock.name, note.get("status", "KILLED"), note.get("end_time")
                    )
            lock.unlink(missing_ok=True)

    def _relocate(self, old: str, new: str) -> None:
        """Point artifacts to the current data root.

        MLflow stores absolute paths and has no call to change them.
        """
        with closing(sqlite3.connect(self._layout.mlflow_database)) as database, database:
            if old != new:
                database.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)"
                    " WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                    (new, len(old) + 1, self.experiment_id, len(old), old),
                )
                database.execute(
                    "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                    (new, self.experiment_id),
                )
            # MLflow's experiment "Default", which nothing here uses.
            database.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0"
                " AND (artifact_location LIKE '%/mlruns/0'"
                " OR artifact_location LIKE '%/mlflow/artifacts/0')"
                " AND NOT EXISTS (SELECT * FROM runs WHERE experiment_id = 0)",
                (f"{new}/0",),
            )


def _address(database: Path) -> str:
    """URL of a SQLite file; ``?`` and ``%20`` in its path are taken literally."""
    address = f"sqlite:///{database}"
    if make_url(address).database == str(database):
        return address
    # With the driver's name, because otherwise MLflow also creates a folder of the escaped path.
    escaped = URL.create("sqlite+pysqlite", database=str(database))
    return escaped.render_as_string(hide_password=False)
