"""The job ``retrain``: the whole graph."""

import dagster as dg

from cxr_assets.defs.executor import fail_dead_runs

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all(),
    description="The whole graph: collect and prepare images, train both models, report, release.",
    config={"loggers": {"console": {"config": {"log_level": "INFO"}}}},
)


def unfinished(instance: dg.DagsterInstance) -> str | None:
    """Why no other retraining starts now: one is queued or runs, and its process is alive."""
    fail_dead_runs(instance)
    running = instance.get_runs(dg.RunsFilter(job_name=retrain.name, statuses=_UNFINISHED), limit=1)
    return f"run {running[0].run_id} of {retrain.name} is unfinished" if running else None
