"""Trainings in two processes, on the CPU."""

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
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
from cxr_assets.learning import distributed
from cxr_assets.learning.fit import Engine, fit
from cxr_assets.learning.history import DivergedError
from cxr_assets.learning.lock import TrainingError
from cxr_assets.learning.module import Classifier
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
# The norm of the difference of two gradients, beside that of the gradient: for the same reason.
GRADIENTS = 1e-4


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


def recorded(train: distributed.Training, folder: Path, *arguments: Any) -> Any:
    """Train in this process; the first one writes the gradients of each step of the optimiser."""

    def write(module: Classifier, optimizer: torch.optim.Optimizer) -> None:
        if module.global_rank == 0:
            gradients = {name: value.grad for name, value in module.named_parameters()}
            torch.save(gradients, folder / f"{module.global_step}.pt")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "on_before_optimizer_step", write)
        return train(*arguments)


def recording(folder: Path) -> Engine:
    """As a training without an engine, but its gradients are written to a folder."""
    folder.mkdir(exist_ok=True)

    def engine(train: distributed.Training, devices: int, *arguments: Any) -> Any:
        if devices == 1:
            return recorded(train, folder, *arguments)
        return distributed.run(partial(recorded, train, folder), devices, *arguments)

    return engine


def assert_same_gradients(folder: Path, expected: Path) -> None:
    """Of each step, as far apart as sums of float32 in another order are."""
    steps = sorted(int(path.stem) for path in expected.iterdir())
    assert steps == sorted(int(path.stem) for path in folder.iterdir())
    for step in steps:
        ours, theirs = (torch.load(each / f"{step}.pt") for each in (folder, expected))
        assert ours.keys() == theirs.keys()
        for name, gradient in theirs.items():
            off, norm = (ours[name] - gradient).norm(), gradient.norm()
            assert off <= GRADIENTS * norm, (step, name, off, norm)


def assert_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    for process in processes:
        while Path(f"/proc/{process}").exists():
            assert time.monotonic() < deadline, f"process {process} is left"
            time.sleep(0.05)


def after(count: int, act: Callable[[list[int]], None]) -> tuple[Callable[[str], None], list[int]]:
    """A progress that acts on the processes of a training after some epochs, and their ids then."""
    seen: list[int] = []
    lines: list[str] = []

    def progress(line: str) -> None:
        lines.append(line)
        if len(epochs(lines)) == count and not seen:
            seen.extend(child.pid for child in multiprocessing.active_children())
            act(seen)

    return progress, seen


def test_two_processes_learn_what_one_does_even_if_each_of_them_is_killed(tmp_path):
    taught = teacher(tmp_path / "teacher")
    settings = (*taught, "trainer.max_epochs=12")  # the kills arrive when some have been trained
    alone, shared = plan(tmp_path / "alone", *settings), plan(tmp_path / "shared", TWO, *settings)
    assert alone.fingerprint == shared.fingerprint, "how many compute does not shape the result"
    expected, expected_curves = [], Curves()
    fit(alone, expected.append, expected_curves, engine=recording(tmp_path / "expected"))
    record = recording(tmp_path / "gradients")

    for rank in (0, 1):  # the first one writes the checkpoints
        progress, processes = after(
            2, lambda ids, rank=rank: os.kill(sorted(ids)[rank], signal.SIGKILL)
        )
        with pytest.raises(TrainingError, match=rf"device {rank} was ended by SIGKILL.*resumes"):
            fit(shared, progress, engine=record)
        assert len(processes) == 2
        assert_gone(processes)
        assert not (shared.work / "finished.json").exists()

    lines, curves = [], Curves()
    fit(shared, lines.append, curves, engine=record)
    assert f"resuming from {shared.work / 'last.ckpt'}" in lines
    done = len(epochs(expected)) - len(epochs(lines))
    assert done >= 2, "of each that was struck, the first of its two epochs was finished"
    assert epochs(lines) == epochs(expected)[done:], "one line for each epoch"
    steps = [step for _, step in expected_curves.points]
    sent = len(steps) * done // len(epochs(expected))
    assert [step for _, step in curves.points] == steps[sent:]
    assert sorted(path.name for path in shared.work.iterdir()) == sorted(
        path.name for path in alone.work.iterdir()
    )
    assert_same_gradients(tmp_path / "gradients", tmp_path / "expected")
    assert_close(shared, alone)


def test_after_sigterm_one_process_resumes_where_two_have_stopped(tmp_path):
    straight = plan(tmp_path / "straight")
    fit(straight, lambda line: None)
    two, one = plan(tmp_path / "stopped", TWO), plan(tmp_path / "stopped")
    progress, processes = after(1, lambda ids: signal.raise_signal(signal.SIGTERM))
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
