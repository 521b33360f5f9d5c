"""The sensor that marks killed runs as failed."""

import dagster as dg

from cxr_assets import tracking
from cxr_assets.defs.executor import fail_dead_runs
from cxr_assets.defs.resources import settings
from cxr_assets.witness import masked


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Finds runs whose process was killed and marks them as failed, in Dagster and in MLflow, "
        "so that queued runs can start."
    ),
)
def killed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    dead = fail_dead_runs(context.instance)
    found = f"killed, now marked as failed: {', '.join(dead)}" if dead else "no killed runs"
    try:
        tracking.end_dead_runs(settings.mlflow_uri, settings.layout)
    except Exception as error:  # noqa: BLE001 - any error is shown, and the next tick retries
        return dg.SkipReason(f"{found}; MLflow cannot be reached ({masked(str(error))})")
    return dg.SkipReason(found)
