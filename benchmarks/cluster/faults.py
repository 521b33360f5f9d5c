"""Faults that strike a run on a cluster at a random moment, and what must be true after."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Protocol

from benchmarks.cluster.nodes import Nodes, working
from benchmarks.cluster.place import PATIENCE, Place
from benchmarks.cluster.webserver import requested

# Seconds after which nothing of a job may be left.
LEFT = 60
# So long that a job which goes on for half of that without its run is not done.
LONG = ("trainer.max_epochs=300", "trainer.patience=300")
_TRAINED = "convnext_model"
# What is removed before, so that there is something to do: of the main model, with another seed.
_MADE = {
    "processed_dataset": ("processed",),
    "dinov2_probe": ("embeddings", "models/dinov2_probe", "work"),
}


class Run(Protocol):
    """A run of Dagster that was launched."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> object | None: ...

    def terminate(self) -> None: ...

    def wait(self, timeout: float) -> object: ...


@dataclass(frozen=True)
class Strike:
    """What a fault strikes.

    Attributes:
        cluster: both nodes.
        place: of the run.
        run: of Dagster.
        earlier: how many trainings MLflow had before it.
    """

    cluster: Nodes
    place: Place
    run: Run
    earlier: int

    def epochs(self) -> list[list[int]]:
        """The epochs of each training since, that of the first attempt first."""
        return [each.epochs for each in self.place.trainings(_TRAINED)[self.earlier :]]


@contextmanager
def _commanded(place: Place, asset: str) -> Iterator[Run]:
    """Launch a run by a command."""
    run = place.launch([asset])
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def _kill_run(strike: Strike) -> None:
    os.killpg(strike.run.pid, signal.SIGKILL)


def _interrupt_run(strike: Strike) -> None:
    os.killpg(strike.run.pid, signal.SIGINT)


def _terminate_run(strike: Strike) -> None:
    strike.run.terminate()


def _kill_driver(strike: Strike) -> None:
    os.kill(_processes("cxr_assets.cluster.job")[0], signal.SIGKILL)


def _kill_worker(strike: Strike) -> None:
    os.kill(_processes("RayTrainWorker")[-1], signal.SIGKILL)


def _kill_mlflow(strike: Strike) -> None:
    assert strike.place.mlflow is not None
    strike.place.mlflow.kill()


def _lose_head(strike: Strike) -> None:
    strike.cluster.kill("head")


def _freeze_head(strike: Strike) -> None:
    strike.cluster.freeze("head")


def _lose_node(strike: Strike) -> None:
    strike.cluster.kill("worker")


def _processes(name: str) -> list[int]:
    return [number for number, words in working().items() if name in words]


def _trains(strike: Strike) -> bool:
    return any(strike.epochs())


def _starts(strike: Strike) -> bool:
    return bool(_processes("RayTrainWorker"))


def _reads(strike: Strike) -> bool:
    return bool(_processes("MapWorker"))


@dataclass(frozen=True)
class Fault:
    """What happens, at which moment, of which asset.

    Attributes:
        happen: what happens.
        status: with which the run then ends.
        moment: after which it happens, within seconds.
        asset: that the run makes.
        launched: how the run is launched.
        borne: whether the job goes on, and ends with the run.
    """

    happen: Callable[[Strike], None]
    status: str
    moment: Callable[[Strike], bool] = _trains
    asset: str = _TRAINED
    launched: Callable[[Place, str], AbstractContextManager[Run]] = _commanded
    borne: bool = False


FAULTS = {
    "run is killed": Fault(_kill_run, "FAILURE"),
    "run is killed as it prepares": Fault(_kill_run, "FAILURE", _reads, "processed_dataset"),
    "run is killed as it embeds": Fault(_kill_run, "FAILURE", _reads, "dinov2_probe"),
    "run is canceled": Fault(_interrupt_run, "FAILURE"),
    "run is terminated": Fault(_terminate_run, "CANCELED", launched=requested),
    "driver is killed": Fault(_kill_driver, "SUCCESS"),
    "worker is killed": Fault(_kill_worker, "SUCCESS"),
    # Ray starts it again, or the run tries again.
    "worker is killed as it starts": Fault(_kill_worker, "SUCCESS", _starts, borne=True),
    "MLflow is killed": Fault(_kill_mlflow, "SUCCESS", borne=True),
    "head node is lost": Fault(_lose_head, "FAILURE"),
    "head node is lost as workers start": Fault(_lose_head, "FAILURE", _starts),
    "head node is frozen": Fault(_freeze_head, "FAILURE"),
    "other node is lost": Fault(_lose_node, "SUCCESS"),
}


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Attributes:
        fault: its name.
        status: of the Dagster run.
        gone: seconds until nothing of the job was left, since the fault or, if the job went on,
            since the run had ended.
        ended: seconds until the run had ended.
    """

    fault: str
    status: str
    gone: float
    ended: float


def strike(cluster: Nodes, place: Place, name: str, chance: Random) -> Outcome:
    """Launch a run on the cluster, strike, and run the same again until it is done.

    Args:
        cluster: both nodes; those that the fault ends are started again.
        place: with a processed dataset; its MLflow, if the fault ends it, is started again.
        name: of the fault.
        chance: of the moment.

    Raises:
        AssertionError: a job or worker is left, the run has not ended as it should, MLflow shows
            one that runs, or an epoch that had been logged was trained again.
    """
    fault = FAULTS[name]
    place.overrides = (*place.overrides, *LONG)
    for made in _MADE.get(fault.asset, ()):
        shutil.rmtree(place.layout.root / made, ignore_errors=True)
    earlier = len(place.trainings(_TRAINED))
    with fault.launched(place, fault.asset) as run:
        struck = Strike(cluster, place, run, earlier)
        _wait_for(fault.moment, struck)
        time.sleep(chance.uniform(0, 3))
        epochs = [] if fault.borne else struck.epochs()
        started = time.monotonic()
        fault.happen(struck)
        if fault.borne:
            run.wait(PATIENCE)
        gone = until_gone(cluster)
        run.wait(PATIENCE)
        ended = time.monotonic() - started
    number = len(place.statuses()) - 1
    cluster.start()
    if place.mlflow is not None:
        place.mlflow.kill()
        place.mlflow.start()
    if fault.status != "SUCCESS":  # by trying again
        place.run(fault.asset)
    status = place.statuses()[number]
    assert status == fault.status, place.log.read_text()[-5000:]
    assert not list(place.layout.jobs.iterdir()), "files of a job are left"
    _require_tracked(struck, epochs)
    return Outcome(name, status, gone, ended)


def _require_tracked(struck: Strike, before: list[list[int]]) -> None:
    """Compare MLflow with what it had before a fault."""
    struck.place.end_dead_runs()
    trainings = struck.place.trainings(_TRAINED)
    assert all(each.status != "RUNNING" for each in trainings), trainings
    if any(before):
        # A checkpoint is written before its epoch is logged.
        resumed = next(epochs for epochs in struck.epochs()[len(before) :] if epochs)
        assert resumed[0] > before[-1][-1], f"{resumed[0]} is trained again: {before[-1]}"


def _wait_for(moment: Callable[[Strike], bool], struck: Strike) -> None:
    deadline = time.monotonic() + PATIENCE
    while not moment(struck):
        if struck.run.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"nothing to strike: {struck.place.log.read_text()[-5000:]}")
        time.sleep(0.1)


def until_gone(cluster: Nodes) -> float:
    """Seconds until no process and no job is left on a cluster.

    Raises:
        AssertionError: something is left after :data:`LEFT` seconds.
    """
    since = time.monotonic()
    while left := [*working().values(), *cluster.jobs()]:
        assert time.monotonic() - since < LEFT, f"left after {LEFT} s: {left}"
        time.sleep(0.5)
    return time.monotonic() - since
