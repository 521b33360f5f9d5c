"""Steps on a Ray cluster: each is a job there, which ends with the run that has submitted it."""

import shlex
import shutil
import uuid
from importlib.metadata import version
from typing import Any

import dagster as dg
import requests

from cxr_assets import liveness, presence
from cxr_assets.cluster.call import Answer, Call, ClusterError, Job, require
from cxr_assets.experiment import Compute, Experiment
from cxr_assets.layout import Layout
from cxr_assets.tracking import Run

# Seconds in which the cluster must answer before a job is submitted.
_ANSWERS = 10
_UNAUTHORIZED = (401, 403)
_JOB = ("python", "-m", "cxr_assets.cluster.job")


class StepError(Exception):
    """A step has failed on the cluster, and would again; the message is its own."""


class JobError(Exception):
    """A job was lost, or has failed as it may not again."""


def run(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    experiment: Experiment,
    layout: Layout,
    mlflow: Run,
    step: str,
    **arguments: Any,
) -> Any:
    """Run a step as a job on the cluster, wait for it, and return its result.

    The job's lines are logged by Dagster. When this returns or raises, or its process is killed,
    nothing of the job is left within a minute, even if the cluster does not answer: its processes
    see that nobody waits for them.

    Args:
        context: of the step.
        experiment: all settings.
        layout: of the data root, which the nodes see at the same path.
        mlflow: the run of the Dagster run.
        step: a name in :data:`cxr_assets.cluster.steps.STEPS`.
        arguments: of the step.

    Raises:
        ClusterError: the cluster cannot be used.
        StepError: the step has failed, and would again.
        JobError: the job was lost, or has failed as it may not again.
    """
    compute = experiment.compute
    _require_usable(compute, layout)
    from cxr_assets.defs import ray_jobs

    for left, _ in liveness.dead(layout.jobs):
        shutil.rmtree(Job(layout, left.name).folder, ignore_errors=True)
        left.unlink()
    name = f"cxr-{step}-{uuid.uuid4().hex[:12]}"
    job = Job(layout, name)
    try:
        client = ray_jobs.client(compute.address)
        _require_same(compute, ray_jobs.ray_version(client))
    except ray_jobs.ERRORS as error:
        raise ClusterError(
            f"the cluster at {compute.address} takes no jobs of this machine: {error}"
        ) from error
    lock = liveness.Lock(job.alive, {})
    try:
        with presence.renewed(job.alive):
            job.write_call(
                Call(
                    step=step,
                    experiment=experiment,
                    mlflow_uri=mlflow.uri,
                    mlflow_run=mlflow.id,
                    arguments=arguments,
                )
            )
            try:
                client.run(
                    context=context,
                    submit_job_params={
                        "entrypoint": shlex.join([*_JOB, str(layout.root), name]),
                        "submission_id": name,
                    },
                )
            except ray_jobs.ERRORS as error:
                raise _reason(job.answer(), name, compute, error) from error
            answer = job.answer()
    finally:
        lock.release()
        shutil.rmtree(job.folder, ignore_errors=True)
    if answer is None:
        raise JobError(f"the job {name} on {compute.address} ended without an answer")
    return answer.result


def _reason(answer: Answer | None, name: str, compute: Compute, error: Exception) -> Exception:
    """The error of a job that has not succeeded."""
    if answer is None or answer.error is None:
        return JobError(
            f"the job {name} on {compute.address} is lost: {error}. Look after the cluster, then "
            "run the same again: a training resumes from its last epoch"
        )
    return (StepError if answer.permanent else JobError)(answer.error)


def _require_usable(compute: Compute, layout: Layout) -> None:
    require(layout)
    try:
        response = requests.get(f"{compute.address}/api/version", timeout=_ANSWERS)
        if response.status_code in _UNAUTHORIZED:
            return  # it answers; Ray's own client has a token, or says how to get one
        response.raise_for_status()
        theirs = str(response.json()["ray_version"])
    except (requests.RequestException, ValueError, KeyError) as error:
        raise ClusterError(
            f"compute.address={compute.address} is not that of a Ray cluster that answers within "
            f"{_ANSWERS} s ({type(error).__name__}): start it (ray start --head), or set "
            "compute.address to its dashboard"
        ) from error
    _require_same(compute, theirs)


def _require_same(compute: Compute, theirs: str) -> None:
    if theirs != (ours := version("ray")):
        raise ClusterError(
            f"the cluster at {compute.address} has Ray {theirs}, this machine {ours}: install the "
            "same on both"
        )
