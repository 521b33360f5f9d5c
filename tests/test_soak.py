"""The short form of `make soak`, and what it takes for a breach."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import tiny

from benchmarks.unattended import faults, soak, watching
from benchmarks.unattended.soak import Soak
from benchmarks.unattended.watching import Measure

MEASURE = Measure({1: "daemon"}, {"daemon": 30}, 0, 0, {watching.ROOT: 1000})


class AsItTrains(Random):
    """The moment at which a training has left a checkpoint: a random one may be too late."""

    def __init__(self, data_root: Path) -> None:
        super().__init__(0)
        self._data_root = data_root

    def uniform(self, a: float, b: float) -> float:
        deadline = time.monotonic() + 300
        while not list(self._data_root.glob("work/*/last.ckpt")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return 0


def test_a_retraining_that_is_terminated_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "_SETTINGS", (*soak._SETTINGS, *tiny.NETWORKS))
    lines: list[str] = []
    with Soak(tmp_path / "soak", 10, False, lines.append) as soaked:
        soaked.follow([faults.TERMINATED], AsItTrains(tmp_path / "soak" / "data"))
    assert not soaked.breaches
    # Dagster says canceled only if a person has terminated the run in the UI.
    row = [line.split(" | ") for line in lines if line.startswith("| 1 |")][-1]
    assert (row[1], row[3]) == ("SIGTERM", "failure")
    assert " 0 failed" in lines[-1]
    deadline = time.monotonic() + 30  # what was killed last may take a moment
    while left := watching.working(tmp_path / "soak" / "data"):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_a_fault_waits_for_a_process_and_is_none_once_the_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soaked = Soak(tmp_path, 1, False, lambda line: None)
    soaked.site = faults.Site(soaked.pipeline, None)
    for found, said in (([None, "hit"], "hit after 0.0 s"), ([None, None], None)):
        ended, strikes = iter([False, False, True]), iter(found)
        monkeypatch.setattr(soaked.pipeline, "finished", lambda run_id, ended=ended: next(ended))
        fault = faults.Fault("none", lambda site, chance, strikes=strikes: next(strikes))
        assert soaked._strike(fault, "id", Random(0), usual=0) == said


def test_half_of_the_retrainings_are_struck_each_kind_as_often() -> None:
    found = Counter(fault and fault.name for fault in faults.plan(50, Random(7)))
    assert found.pop(None) == 25
    assert set(found.values()) == {5}
    assert faults.plan(50, Random(7)) == faults.plan(50, Random(7)) != faults.plan(50, Random(8))


def test_a_process_is_found_whoever_its_parent_is(tmp_path: Path) -> None:
    code = "import time; print(flush=True); time.sleep(600)"
    environment = {**os.environ, "CXR_DATA_ROOT": str(tmp_path)}
    started = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {code!r}])"
    parent = subprocess.Popen(
        [sys.executable, "-c", started], env=environment, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    with parent:
        parent.stdout.readline()
        (orphan,) = set(watching.working(tmp_path)) - {parent.pid}
        os.kill(orphan, signal.SIGKILL)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (replace(MEASURE, processes={1: "daemon", 2: "left"}), "left"),
        (replace(MEASURE, temporary=1), "temporary=1"),
        (replace(MEASURE, locks=1), "locks=1"),
        (replace(MEASURE, handles={"daemon": 60}), "daemon has 60 open files, 30 at first"),
    ],
)
def test_what_stays_behind_is_a_breach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Measure, said: str
) -> None:
    soaked = Soak(tmp_path, 0.001, False, lambda line: None)
    monkeypatch.setattr(soak, "measure", lambda pipeline, service: found)
    soaked.look(MEASURE, 0)
    (breach,) = soaked.breaches
    assert said in breach


@pytest.mark.parametrize(("last", "breaches"), [(520, 0), (600, 1)])
def test_a_data_root_that_grows_after_pruning_is_a_breach(last: int, breaches: int) -> None:
    measures = [replace(MEASURE, disk={watching.ROOT: size}) for size in (500, 510, 490, last)]
    assert len(watching.flat(measures, print)) == breaches


@pytest.mark.parametrize(("mebibytes", "breaches"), [(3, 0), (17, 1)])
def test_records_may_grow_a_little_with_each_retraining(mebibytes: int, breaches: int) -> None:
    lines: list[str] = []
    measures = [replace(MEASURE, disk={"Dagster": n * mebibytes << 20}) for n in range(8)]
    assert len(watching.flat(measures, lines.append)) == breaches
    assert lines == [f"Dagster: {mebibytes}.00 MiB more with each retraining"]


def test_all_that_lies_below_the_root_is_measured(tmp_path: Path) -> None:
    for place in ("data/models/a", "dagster/storage/run/a", "mlflow/a", "daemon.log"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(bytes(1 << 20))
    found = watching.sizes(tmp_path)
    assert set(found) == {watching.ROOT, "Dagster", "MLflow", "logs"}
    assert {size >> 20 for size in found.values()} == {1}
