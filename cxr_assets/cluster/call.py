"""What a step and its job on the cluster write for each other, in the data root."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cxr_assets import presence
from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_serving.model.atomic import write_file


class ClusterError(Exception):
    """The cluster cannot be used; the message says why and what to do."""


def require(layout: Layout) -> None:
    """Look for what any use of a cluster needs here.

    Raises:
        ClusterError: Ray is not installed, or the data root is in a bucket.
    """
    if any(find_spec(name) is None for name in ("ray", "dagster_ray")):
        raise ClusterError(
            "compute=ray needs Ray, which is not installed: pip install 'cxr-retraining[ray]'"
        )
    if layout.url is not None:
        raise ClusterError(
            f"compute=ray needs a data root that all nodes see at the same path, not {layout.url}: "
            "set CXR_DATA_ROOT to a folder that they share"
        )


def watched(alive: Path) -> dict[str, Any]:
    """Ray's ``runtime_env`` of a worker that ends once nobody waits for its job.

    It is for each worker, not for the job: Ray Data keeps actors of its own on the cluster, with
    the environment of the job that needed them first, for all jobs after it. So the hook is named
    as Ray names it to the worker; ``worker_process_setup_hook`` is for a whole job only.
    """
    from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

    return {
        "env_vars": {
            presence.VARIABLE: str(alive),
            WORKER_PROCESS_SETUP_HOOK_ENV_VAR: "cxr_assets.presence.watch_or_end",
        }
    }


class Call(BaseModel):
    """The contents of ``call.json``.

    Attributes:
        step: which step; a name in :data:`cxr_assets.cluster.steps.STEPS`.
        experiment: all settings.
        mlflow_uri: as :func:`cxr_assets.tracking.open_store` takes it.
        mlflow_run: id of the MLflow run of the Dagster run, if the store knows it.
        arguments: of the step.
    """

    step: str
    experiment: Experiment
    mlflow_uri: str | None
    mlflow_run: str | None
    arguments: dict[str, Any]


class Answer(BaseModel):
    """The contents of ``answer.json``: a result, or an error.

    Attributes:
        result: what the step returns.
        error: a message that suffices.
        permanent: whether the same would fail again.
    """

    result: Any = None
    error: str | None = None
    permanent: bool = False


class Job:
    """The files of one job; they are deleted when it has ended.

    Args:
        layout: of the data root.
        name: of the job.

    Attributes:
        alive: exists, and is renewed, as long as the step waits for the job.
        folder: all the others.
    """

    def __init__(self, layout: Layout, name: str) -> None:
        self.alive = layout.jobs / name
        self.folder = layout.jobs / f".{name}"

    def call(self) -> Call:
        """What to do."""
        return Call.model_validate_json((self.folder / "call.json").read_bytes())

    def write_call(self, call: Call) -> None:
        """Say what to do."""
        self.folder.mkdir(parents=True)
        # The address of a tracking server may hold a password.
        self.folder.chmod(0o700)
        write_file(self.folder / "call.json", call.model_dump_json().encode())

    def answer(self) -> Answer | None:
        """What came of it; None if the job was ended before it could say so."""
        path = self.folder / "answer.json"
        return Answer.model_validate_json(path.read_bytes()) if path.exists() else None

    def write_answer(self, answer: Answer) -> None:
        """Say what came of it."""
        write_file(self.folder / "answer.json", answer.model_dump_json().encode())
