"""A file system without locks, such as NFS without a lock daemon: nothing runs unprotected."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import killing
import pytest
import tiny
from dead_runs import status
from radiographs import prepared

from cxr_assets.defs.executor import fail_dead_runs, tracked_in_process
from cxr_assets.evaluation.removal import remove_absent
from cxr_assets.layout import Layout
from cxr_assets.learning import cache
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.progress import StorageError
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.naming import KAGGLE_CLASSES


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_every_step_says_that_it_needs_locks(without_locks: None, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=2)
    data = prepared.data(tmp_path / "source")
    plan = killing.plan(layout)
    layout.embeddings.mkdir()
    steps: list[Callable[[], object]] = [
        lambda: raw.collect(data, KAGGLE_CLASSES, layout, print),
        lambda: fit(plan, print),
        lambda: export(plan),
        lambda: cache.retain(layout, lambda image: True, print),
        lambda: remove_absent(layout, print),
    ]
    for step in steps:
        with pytest.raises(
            StorageError, match=rf"{layout.root}/.*no locks.*or set CXR_DATA_ROOT to"
        ):
            step()
    assert not list(layout.root.glob("work/*/")), "nothing was trained"


@dg.op
def _nothing() -> None: ...


@dg.job(executor_def=tracked_in_process)
def _job() -> None:
    _nothing()


def test_a_run_goes_on_and_says_what_is_lost(
    without_locks: None, instance: dg.DagsterInstance
) -> None:
    done = dg.execute_job(dg.reconstructable(_job), instance)
    assert done.success
    said = [entry.user_message for entry in instance.all_logs(done.run_id)]
    assert any("has no lock" in line and "max_runtime_seconds" in line for line in said), said
    assert fail_dead_runs(instance) == []
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    assert status(instance, run) is dg.DagsterRunStatus.SUCCESS
