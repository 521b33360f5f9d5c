"""Trainings in processes of their own, which are killed, and what they left behind."""

import random
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pandas as pd
import tiny
import torch
from forking import PROCESSES

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import Plan
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.progress import Progress

EPOCHS = 30
OVERRIDES = (
    *tiny.NETWORKS,
    f"trainer.max_epochs={EPOCHS}",
    f"trainer.patience={EPOCHS}",
    "trainer.batch_size=4",
    "trainer.ema_decay=0.9",
)
ENDS = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (-signal.SIGTERM, 128 + signal.SIGTERM)}


def plan(layout: Layout, *overrides: str) -> Plan:
    """Of a training of the main model with a tiny network and an average of its weights."""
    return make_plan("convnext_model", compose("demo", [*OVERRIDES, *overrides]), layout)


class Training:
    """``fit`` in a process of its own.

    Args:
        plan: what to train.
        pause: it waits after the first line that begins so, until ``go_on``.
        force: train again.
    """

    def __init__(self, plan: Plan, pause: str | None = None, force: bool = False) -> None:
        self.lines: list[str] = []
        self._lines, theirs = PROCESSES.Pipe()
        self.process: ForkServerProcess = PROCESSES.Process(
            target=_train, args=(plan, pause, force, theirs)
        )
        self.process.start()
        theirs.close()

    def wait_for(self, start: str, seconds: float = 120) -> str:
        """The next line that begins with ``start``."""
        deadline = time.monotonic() + seconds
        while self._lines.poll(deadline - time.monotonic()):
            self.lines.append(self._lines.recv())
            if self.lines[-1].startswith(start):
                return self.lines[-1]
        raise TimeoutError(f"no line {start!r} in {seconds} s: {self.lines}")

    def go_on(self) -> None:
        """After a pause."""
        self._lines.send(None)

    def kill(self, number: signal.Signals) -> None:
        """Send SIGKILL or SIGTERM, and see the process end by it within 10 s."""
        (self.process.kill if number is signal.SIGKILL else self.process.terminate)()
        self.process.join(10)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"it goes on 10 s after {number.name}")
        assert self.process.exitcode in ENDS[number], self.process.exitcode

    def finish(self, seconds: float = 120) -> list[str]:
        """All lines, once it has ended well."""
        try:
            while True:
                self.lines.append(self._lines.recv())
        except EOFError:
            pass
        self.process.join(seconds)
        assert self.process.exitcode == 0, (self.process.exitcode, self.lines)
        return self.lines


def _train(plan: Plan, pause: str | None, force: bool, lines: Connection) -> None:
    torch.set_num_threads(1)

    def report(line: str) -> None:
        lines.send(line)
        if pause is not None and line.startswith(pause):
            lines.recv()

    fit(plan, report, force=force)


def left_behind(work: Path) -> dict[str, Any]:
    """All of a finished fit that must not depend on where it was interrupted."""
    last, best = (torch.load(work / f"{name}.ckpt", weights_only=True) for name in ("last", "best"))
    return {
        "last": {
            key: last[key]
            for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers")
        },
        "best": best["state_dict"],
        "history": pd.read_csv(work / "history.csv").drop(columns="seconds").to_dict("list"),
    }


def difference(ours: Any, theirs: Any, place: str = "") -> str | None:
    """Where two trees of tensors and values differ by a bit, or None."""
    if isinstance(ours, torch.Tensor):
        return None if torch.equal(ours, theirs) else place
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return f"{place}: {ours.keys() ^ theirs.keys()}"
        pairs = ((key, ours[key], theirs[key]) for key in ours)
    elif isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            return f"{place}: {len(ours)} and {len(theirs)}"
        pairs = zip(range(len(ours)), ours, theirs, strict=True)
    else:
        return None if ours == theirs else f"{place}: {ours} and {theirs}"
    found = (difference(one, other, f"{place}/{key}") for key, one, other in pairs)
    return next((place for place in found if place is not None), None)


def soak(root: Path, kills: int, seed: int, progress: Progress, epochs: int = EPOCHS) -> None:
    """Kill a training at random moments, run it again until it is done, and compare.

    Half of the kills are SIGKILL, half SIGTERM. When a training ends before all kills are done, it
    is compared, and the next begins anew.

    Args:
        root: an empty folder.
        kills: how many.
        seed: of moments and signals.
        progress: called with a line a kill.
        epochs: of a training.

    Raises:
        AssertionError: a training that was killed differs from one that was not, by a single bit.
        TimeoutError: a training goes on 10 s after SIGTERM.
    """
    chance = random.Random(seed)
    signals = [signal.SIGKILL, signal.SIGTERM] * (-(-kills // 2))
    chance.shuffle(signals)
    plans = []
    for name in ("straight", "killed"):
        layout = Layout(root / name)
        tiny.processed(layout, images=6)
        plans.append(plan(layout, f"trainer.max_epochs={epochs}"))
    straight, killed = plans
    training = Training(straight)
    training.wait_for("epoch 1")
    started = time.monotonic()
    training.finish()
    duration = time.monotonic() - started
    expected = left_behind(straight.work)
    done = 0
    while done < kills:
        killed.discard()
        finished = False
        while not finished:
            training = Training(killed)
            if done < kills:
                # So that a training is killed a few times before it is done.
                delay = chance.uniform(0, duration / 2)
                training.process.join(delay)
                if training.process.exitcode is None:
                    training.kill(signals[done])
                    progress(f"kill {done + 1}/{kills}: {signals[done].name} after {delay:.2f} s")
                    done += 1
                    continue
            lines = training.finish()
            finished = True
        place = difference(left_behind(killed.work), expected)
        assert place is None, f"seed {seed}: what was killed differs in {place}; {lines}"
