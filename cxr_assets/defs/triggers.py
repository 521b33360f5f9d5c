"""Sensors that start a retraining before Sunday. They are off until somebody turns them on."""

from datetime import UTC, datetime

import dagster as dg

from cxr_assets import experiment, overrides
from cxr_assets.defs.jobs import retrain, unfinished
from cxr_assets.defs.resources import settings


@dg.sensor(
    job=retrain,
    minimum_interval_seconds=120,
    description=(
        "Retrains when a folder or a table of images has changed, and has not changed any more for "
        "ten minutes. Waits while another retrain is unfinished."
    ),
)
def retrain_on_new_images(
    context: dg.SensorEvaluationContext,
) -> dg.RunRequest | dg.SkipReason:
    from cxr_assets.radiographs import arrivals

    data = experiment.compose(settings.experiment, overrides.split(settings.overrides)).data
    try:
        content = arrivals.content(data)
    except OSError as error:
        return dg.SkipReason(f"a folder or a table is out of reach: {error.strerror}")
    if content is None:
        return dg.SkipReason("no source is a folder or a table")
    before = arrivals.Seen.model_validate_json(context.cursor) if context.cursor else None
    seen, act = arrivals.follow(before, content, datetime.now(UTC))
    if act and (reason := unfinished(context.instance)):
        return dg.SkipReason(f"new images, but {reason}")
    context.update_cursor(seen.model_dump_json())
    if act and before is not None:
        return dg.RunRequest(run_key=f"new images {content[:16]} {before.since}")
    return dg.SkipReason("new images, not settled yet" if seen.changed else "no new images")


@dg.sensor(
    job=retrain,
    minimum_interval_seconds=300,
    description=(
        "Retrains once when the service at CXR_SERVICE_URL measures a drift that lasts for an hour."
    ),
)
def retrain_on_drift(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    from cxr_assets import drift

    try:
        psi = drift.measured(settings.service_url)
    except drift.NotMeasured as reason:
        return dg.SkipReason(str(reason))
    before = context.cursor
    cursor, act = drift.follow(before, psi, datetime.now(UTC))
    if act and (busy := unfinished(context.instance)):
        return dg.SkipReason(f"drift, but {busy}")
    context.update_cursor(cursor)
    if act:
        return dg.RunRequest(run_key=f"drift since {before}")
    return dg.SkipReason("drift" if cursor else "no drift")


triggers = [retrain_on_new_images, retrain_on_drift]
