"""Runs on record whose process is gone, or may be."""

from pathlib import Path

import dagster as dg

from cxr_assets.definitions import definitions

STARTED = dg.DagsterRunStatus.STARTED


def lock(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Path:
    return Path(instance.storage_directory()) / "running" / run.run_id


def begun(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus = STARTED
) -> tuple[dg.DagsterRun, Path]:
    """A run on record and its lock, which no process holds."""
    run = instance.create_run_for_job(definitions.resolve_job_def("retrain"), status=status)
    place = lock(instance, run)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("{}")
    return run, place


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status
