"""The weekly schedule."""

import dagster as dg

from cxr_assets.defs.executor import fail_dead_runs
from cxr_assets.defs.jobs import retrain
from cxr_assets.defs.resources import settings

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.schedule(
    job=retrain,
    cron_schedule="0 3 * * 0",
    execution_timezone=settings.schedule_timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Retrains every Sunday at 03:00. Skips while another retrain is unfinished.",
)
def weekly_retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    fail_dead_runs(context.instance)
    running = context.instance.get_runs(
        dg.RunsFilter(job_name=retrain.name, statuses=UNFINISHED), limit=1
    )
    if running:
        return dg.SkipReason(f"run {running[0].run_id} of {retrain.name} is unfinished")
    return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat())
