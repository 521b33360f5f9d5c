"""The weekly schedule."""

import dagster as dg

from cxr_assets.defs.jobs import retrain, unfinished
from cxr_assets.defs.resources import settings


@dg.schedule(
    job=retrain,
    cron_schedule="0 3 * * 0",
    execution_timezone=settings.schedule_timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Retrains every Sunday at 03:00. Skips while another retrain is unfinished.",
)
def weekly_retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    if reason := unfinished(context.instance):
        return dg.SkipReason(reason)
    return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat())
