"""Sensors that notify people, one message per event; on where the settings name receivers."""

from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.tags import WILL_RETRY_TAG

from cxr_assets import decisions
from cxr_assets.defs import failures
from cxr_assets.defs.assets import WEEKLY
from cxr_assets.defs.resources import settings
from cxr_assets.release import promotion

# Those whose age matters to whoever uses the answers.
WATCHED = ("convnext_model", "metrics_report", "hf_release")
STALE = WEEKLY.fail_window.to_timedelta()


def _status(*needed: object) -> dg.DefaultSensorStatus:
    on = bool(settings.receivers) and all(needed)
    return dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED


def _notify(log: Callable[[str], None], title: str, *lines: str, link: str) -> None:
    settings.receivers.send(title, "\n".join((*lines, f"{settings.dagster_url}/{link}")), log)


@dg.run_failure_sensor(
    minimum_interval_seconds=30,
    default_status=_status(),
    description="Notifies of each failed run: the failing step, the first lines of its error.",
)
def notify_failed_run(context: dg.RunFailureSensorContext) -> None:
    run = context.dagster_run
    # Dagster cannot launch again what a command line has started.
    again = run.tags.get(WILL_RETRY_TAG) == "true" and run.remote_job_origin is not None
    _notify(
        context.log.warning,
        f"{run.job_name} failed" + (" and is launched again" if again else ""),
        f"Run {run.run_id.split('-')[0]} of {run.job_name} failed.",
        *(["It is launched again; if that fails, too, another message follows."] if again else []),
        *failures.described(context),
        link=f"runs/{run.run_id}",
    )


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=_status(),
    description="Notifies of each release that the rule holds, once, however often it is repeated.",
)
def notify_held_release(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    settings.receivers.check()
    now = datetime.now(UTC)
    since = datetime.fromisoformat(context.cursor) if context.cursor else now
    new = [one for one in decisions.history(settings.layout) if one.decided_at > since]
    held = [one for one in new if one.decision == "held"]
    context.update_cursor(max([since, *(one.decided_at for one in new)]).isoformat())
    for one in held:
        _notify(
            context.log.warning,
            f"Release {one.version} is held",
            one.summary,
            promotion.consequence(one.version),
            link="assets/hf_release",
        )
    return dg.SkipReason(f"held since the last tick: {len(held)}")


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=_status(),
    description="Notifies once when model, report or release fails its freshness policy.",
)
def notify_stale_model(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    settings.receivers.check()
    records = context.instance.get_freshness_state_records([dg.AssetKey(name) for name in WATCHED])
    stale = ", ".join(
        name
        for name in WATCHED
        if (record := records.get(dg.AssetKey(name))) and record.freshness_state == "FAIL"
    )
    known = context.cursor
    context.update_cursor(stale)
    # Assets of one missed run become stale one after the other.
    if stale and not known:
        _notify(
            context.log.warning,
            "The model is stale",
            f"For {STALE.days} days, no run has made or confirmed {stale}. Look for a "
            "weekly_retrain that failed, was skipped or is turned off.",
            link="automation/schedules",
        )
    return dg.SkipReason(f"stale: {stale or 'none'}")


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=_status(settings.service_url),
    description="Notifies once when the service measures a drift that lasts for an hour.",
)
def notify_drift(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    from cxr_assets import drift

    settings.receivers.check()
    try:
        psi = drift.measured(settings.service_url)
    except drift.NotMeasured as reason:
        return dg.SkipReason(str(reason))
    cursor, act = drift.follow(context.cursor, psi, datetime.now(UTC))
    context.update_cursor(cursor)
    found = ", ".join(f"{name} {value:.2f}" for name, value in sorted((psi or {}).items()))
    if act:
        _notify(
            context.log.warning,
            "The images drift",
            f"The images of the service differ from those that the model was validated on: PSI "
            f"{found}; the limit is {drift.LIMIT}. Do not trust the answers before somebody has "
            "found the cause.",
            link="assets/convnext_model",
        )
    return dg.SkipReason(f"PSI: {found or 'too few images'}")


notifications = [notify_failed_run, notify_held_release, notify_stale_model, notify_drift]
