"""Trainings in two processes, on the CPU."""

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import killing
import pytest
import tiny
import torch
from learning.probing import teacher
from lightning.pytorch.loggers.logger import DummyLogger

from cxr_assets.layout import Layout
from cxr_assets.learning.fit import fit
from cxr_assets.learning.history import DivergedError
from cxr_assets.learning.lock import TrainingError
from cxr_assets.learning.plan import Plan

# The last batch of an epoch has one image, and so none for the second process.
SETTINGS = (
    *("trainer.max_epochs=3", "trainer.batch_size=17", "trainer.optimizer=muon"),
    *("trainer.mixup=0.5", "trainer.cutmix=0.5", "trainer.class_balance=weights"),
    *("model.drop_path_rate=0.3", "trainer.augmentation.noise=1", "trainer.progressive=0.5"),
    *("model.patch_size=2",),
)
TWO = "trainer.devices=2"
# Sums of float32 in another order, in the gradients and in the loss, over a few steps.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


class Curves(DummyLogger):
    """Lists what it receives."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[dict[str, float], int | None]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.points.append((dict(metrics), step))


def plan(root: Path, *overrides: str) -> Plan:
    layout = Layout(root)
    if not layout.processed.exists():
        tiny.processed(layout, images=6)
    return killing.plan(layout, *SETTINGS, *overrides)


def epochs(lines: list[str]) -> list[str]:
    return [re.sub(r", [0-9]+ s$", "", line) for line in lines if line.startswith("epoch")]


def assert_close(ours: Plan, theirs: Plan) -> None:
    one, other = (killing.left_behind(each.work) for each in (ours, theirs))
    for part in ("best", "history"):
        torch.testing.assert_close(one[part], other[part], **TOLERANCE)
    for part in ("current_model_state", "state_dict"):
        torch.testing.assert_close(one["last"][part], other["last"][part], **TOLERANCE)


def assert_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    for process in processes:
        while Path(f"/proc/{process}").exists():
            assert time.monotonic() < deadline, f"process {process} is left"
            time.sleep(0.05)


def during(epoch: str, act: Callable[[list[int]], None]) -> tuple[Callable[[str], None], list[int]]:
    """A progress that acts on the processes of a training, once, and their ids then."""
    seen: list[int] = []

    def progress(line: str) -> None:
        if line.startswith(epoch) and not seen:
            seen.extend(child.pid for child in multiprocessing.active_children())
            act(seen)

    return progress, seen


def test_two_processes_learn_what_one_does_even_if_one_of_them_is_killed(tmp_path):
    taught = teacher(tmp_path / "teacher")
    settings = (*taught, "trainer.max_epochs=6")  # the kill arrives when some have been trained
    alone, shared = plan(tmp_path / "alone", *settings), plan(tmp_path / "shared", TWO, *settings)
    assert alone.fingerprint == shared.fingerprint, "how many compute does not shape the result"
    expected, expected_curves = [], Curves()
    fit(alone, expected.append, expected_curves)

    progress, processes = during("epoch 2", lambda ids: os.kill(max(ids), signal.SIGKILL))
    with pytest.raises(TrainingError, match=r"on device [01] was ended by SIGKILL.*resumes"):
        fit(shared, progress)
    assert len(processes) == 2
    assert_gone(processes)
    assert not (shared.work / "finished.json").exists()

    lines, curves = [], Curves()
    fit(shared, lines.append, curves)
    assert f"resuming from {shared.work / 'last.ckpt'}" in lines
    done = len(epochs(expected)) - len(epochs(lines))
    assert done > 0
    assert epochs(lines) == epochs(expected)[done:], "one line for each epoch"
    steps = [step for _, step in expected_curves.points]
    sent = len(steps) * done // len(epochs(expected))
    assert [step for _, step in curves.points] == steps[sent:]
    assert sorted(path.name for path in shared.work.iterdir()) == sorted(
        path.name for path in alone.work.iterdir()
    )
    assert_close(shared, alone)


def test_after_sigterm_one_process_resumes_where_two_have_stopped(tmp_path):
    straight = plan(tmp_path / "straight")
    fit(straight, lambda line: None)
    two, one = plan(tmp_path / "stopped", TWO), plan(tmp_path / "stopped")
    progress, processes = during("epoch 1", lambda ids: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        fit(two, progress)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert_gone(processes)
    state = torch.load(two.work / "last.ckpt", weights_only=True)
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == 1
    fit(one, lambda line: None)
    assert_close(one, straight)


def test_the_error_of_a_process_is_that_of_the_training(tmp_path):
    with pytest.raises(DivergedError, match=r"lower model\.lr") as error:
        fit(plan(tmp_path, TWO, "model.lr=1e30"), lambda line: None)
    assert "on device" in "".join(error.value.__notes__)


def _train(ours: Plan, processes: Connection) -> None:
    def progress(line: str) -> None:
        processes.send([child.pid for child in multiprocessing.active_children()])

    fit(ours, progress)


def test_no_process_outlives_the_one_that_started_it(tmp_path):
    context: Any = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    endless = plan(tmp_path, TWO, "trainer.max_epochs=1000", "trainer.patience=1000")
    parent = context.Process(target=_train, args=(endless, theirs))
    parent.start()
    theirs.close()
    assert ours.poll(300)
    processes = ours.recv()
    assert len(processes) == 2
    parent.kill()
    assert_gone(processes)
