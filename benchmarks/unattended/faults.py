"""Faults that strike a retraining at a random moment."""

import errno
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.unattended.pipeline import CHECKOUT, Pipeline
from benchmarks.unattended.watching import working

sys.path.insert(0, str(CHECKOUT / "tests"))

import damage
import mlflow_server


@dataclass(frozen=True)
class Site:
    """What faults strike.

    Attributes:
        pipeline: that retrains.
        mlflow: its tracking server, if it has one of its own.
    """

    pipeline: Pipeline
    mlflow: mlflow_server.Server | None

    @property
    def ballast(self) -> Path:
        """What fills the disk of the data root."""
        return self.pipeline.layout.root / ".ballast"


def _nothing(site: Site) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        name: for people.
        strike: does it, and says what exactly; None if there is nothing to strike yet.
        repair: undoes it when the retraining has ended.
        survived: whether the retraining must succeed all the same.
        before: whether it strikes before the retraining starts.
    """

    name: str
    strike: Callable[[Site, Random], str | None]
    repair: Callable[[Site], None] = _nothing
    survived: bool = False
    before: bool = False


def _runs(site: Site) -> list[int]:
    """The processes of Dagster's runs: forks of a child of the code location."""
    location = site.pipeline.processes["code-location"].pid
    return [
        pid
        for pid in working(site.pipeline.layout.root)
        if (parent := _parent(pid)) and _parent(parent) == location
    ]


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _signalled(number: signal.Signals) -> Callable[[Site, Random], str | None]:
    def strike(site: Site, chance: Random) -> str | None:
        runs = _runs(site)
        for pid in runs:
            os.kill(pid, number)
        return "" if runs else None

    return strike


def _damage(site: Site, chance: Random) -> str:
    root = site.pipeline.layout.root
    folder = chance.choice(["processed", "models", "reports", "embeddings", "raw"])
    files = [path for path in (root / folder).rglob("*") if path.is_file() and _counts(path)]
    path = chance.choice(sorted(files))
    how = chance.choice([damage.empty, damage.cut, damage.alter])
    how(path)
    return f"{how.__name__} {path.relative_to(root)}"


def _counts(path: Path) -> bool:
    return path.stat().st_size > 0 and path.suffix != ".lock" and path.name != ".lock"


def clear(site: Site) -> None:
    """Delete what the log says is kept, because it is damaged, as a person does who reads it."""
    log = (site.pipeline.root / "code-location.log").read_text()
    for place in set(re.findall(r"(/\S+) is kept: ", log)):
        shutil.rmtree(place, ignore_errors=True)


def _mlflow_down(site: Site, chance: Random) -> str:
    assert site.mlflow is not None
    site.mlflow.kill()
    return ""


def _mlflow_up(site: Site) -> None:
    assert site.mlflow is not None
    site.mlflow.start()


def _fill(site: Site, chance: Random) -> str:
    with site.ballast.open("wb", buffering=0) as file:
        block = b"\0" * 2**20
        while block:
            try:
                file.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                block = block[: len(block) // 2]
    return f"{site.ballast.stat().st_size >> 20} MiB"


def _free(site: Site) -> None:
    site.ballast.unlink()


KILLED = Fault("kill -9", _signalled(signal.SIGKILL))
TERMINATED = Fault("SIGTERM", _signalled(signal.SIGTERM))
DAMAGED = Fault("damaged file", _damage, survived=True, before=True)
MLFLOW_DOWN = Fault("MLflow down", _mlflow_down, _mlflow_up, survived=True)
DISK_FULL = Fault("disk full", _fill, _free)
_ALL = (KILLED, TERMINATED, DAMAGED, MLFLOW_DOWN, DISK_FULL)


def plan(retrainings: int, chance: Random) -> list[Fault | None]:
    """A fault at random in half of so many retrainings, each kind as often as the others."""
    struck = retrainings // 2
    kinds: list[Fault | None] = [_ALL[number % len(_ALL)] for number in range(struck)]
    found = kinds + [None] * (retrainings - struck)
    chance.shuffle(found)
    return found
