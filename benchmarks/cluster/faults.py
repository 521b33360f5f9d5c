"""Faults that strike a training on a cluster at a random moment, and what must be true after."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from benchmarks.cluster.nodes import Nodes, working
from benchmarks.cluster.place import PATIENCE, Place

# Seconds after which nothing of a job may be left.
LEFT = 60
# So long that a job which goes on for half of that without its run is not done.
LONG = ("trainer.max_epochs=300", "trainer.patience=300")


@dataclass(frozen=True)
class Strike:
    """What a fault strikes.

    Attributes:
        cluster: both nodes.
        run: the process of the Dagster run.
    """

    cluster: Nodes
    run: subprocess.Popen[bytes]


def _driver(strike: Strike) -> None:
    os.killpg(strike.run.pid, signal.SIGKILL)


def _cancel(strike: Strike) -> None:
    os.killpg(strike.run.pid, signal.SIGINT)


def _worker(strike: Strike) -> None:
    ranks = [number for number, words in working().items() if "RayTrainWorker" in words]
    os.kill(ranks[-1], signal.SIGKILL)


def _head(strike: Strike) -> None:
    strike.cluster.kill("head")


def _frozen(strike: Strike) -> None:
    strike.cluster.freeze("head")


def _node(strike: Strike) -> None:
    strike.cluster.kill("worker")


@dataclass(frozen=True)
class Fault:
    """What happens to a training, and when.

    Attributes:
        happen: what happens.
        early: as its workers start, before there is a checkpoint; else within the first epochs.
    """

    happen: Callable[[Strike], None]
    early: bool = False


FAULTS = {
    "run is killed": Fault(_driver),
    "run is canceled": Fault(_cancel),
    "worker is killed": Fault(_worker),
    "worker is killed as it starts": Fault(_worker, early=True),
    "head node is lost": Fault(_head),
    "head node is lost as workers start": Fault(_head, early=True),
    "head node is frozen": Fault(_frozen),
    "other node is lost": Fault(_node),
}


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Attributes:
        fault: its name.
        status: of the Dagster run.
        gone: seconds until nothing of the job was left.
        ended: seconds until the run had ended.
    """

    fault: str
    status: str
    gone: float
    ended: float


def strike(cluster: Nodes, place: Place, fault: str, chance: Random) -> Outcome:
    """Train on the cluster, strike, and train again until it is done.

    Args:
        cluster: both nodes; those that the fault ends are started again.
        place: with a processed dataset.
        fault: its name.
        chance: of the moment.

    Raises:
        AssertionError: a job or worker is left, the run has not ended, or a training that had
            a checkpoint was begun anew.
    """
    place.overrides = (*place.overrides, *LONG)
    run = place.launch(["convnext_model"])
    early = FAULTS[fault].early
    if early:
        _wait_for_workers()
    else:
        place.wait_for("epoch ")
    time.sleep(chance.uniform(0, 3 if early else 5))
    started = time.monotonic()
    FAULTS[fault].happen(Strike(cluster, run))
    gone = _gone(cluster, started)
    run.wait(PATIENCE)
    ended = time.monotonic() - started
    struck = len(place.statuses()) - 1
    said = place.log.read_text()
    cluster.start()
    if place.statuses()[struck] != "SUCCESS":  # by trying again
        place.run("convnext_model")
        said = place.log.read_text()
    status = place.statuses()[struck]
    assert status in ("FAILURE", "CANCELED", "SUCCESS"), status
    assert early or "resuming from" in said, said[-5000:]
    assert not list(place.layout.jobs.iterdir()), "files of a job are left"
    return Outcome(fault, status, gone, ended)


def _wait_for_workers() -> None:
    deadline = time.monotonic() + PATIENCE
    while not any("RayTrainWorker" in words for words in working().values()):
        if time.monotonic() > deadline:
            raise TimeoutError("no worker has started")
        time.sleep(0.1)


def _gone(cluster: Nodes, since: float) -> float:
    """Seconds until no process and no job of this training was left."""
    while left := [*working().values(), *cluster.jobs()]:
        assert time.monotonic() - since < LEFT, f"left after {LEFT} s: {left}"
        time.sleep(0.5)
    return time.monotonic() - since
