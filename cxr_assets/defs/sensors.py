"""The sensor that finds out killed runs."""

import dagster as dg

from cxr_assets import tracking
from cxr_assets.defs.executor import fail_dead_runs
from cxr_assets.defs.resources import settings
from cxr_assets.witness import masked


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Marks runs as failed whose process was killed, in Dagster and in MLflow, so that what is "
        "queued behind them starts."
    ),
)
def killed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    dead = fail_dead_runs(context.instance)
    found = f"found killed and marked as failed: {', '.join(dead)}" if dead else "none was killed"
    try:
        tracking.end_dead_runs(settings.mlflow_uri, settings.layout)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is shown and tried again
        return dg.SkipReason(f"{found}; MLflow is out of reach ({masked(str(error))})")
    return dg.SkipReason(found)
