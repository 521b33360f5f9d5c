"""Processes of the running stack are killed at random moments, and what must come of it."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from deploy.stack.client import ENDED, Stack
from deploy.stack.retraining import Phase
from deploy.stack.swaps import Swaps

# What docs/reliability.md promises of a run whose process is gone: the interval of the sensor
# `killed_runs`, and a minute until its end is on record.
_PROMISED_SECONDS = 30 + 60
# Networks that train in seconds, for long enough that a process can be killed meanwhile.
_OVERRIDES = (
    "data.synthetic_patients=8 data.image_size=32 model.hidden_sizes=[8,8,16,16] "
    "model.depths=[1,1,1,1] probe.hidden_size=32 probe.num_hidden_layers=1 "
    "probe.num_attention_heads=2 trainer.max_epochs=60 trainer.patience=60"
)
_LATEST_SECONDS = 5.0


class Faults:
    """Each fault, several times.

    Args:
        stack: which has started.
        data: the data root, as it lies on this machine.
        overrides: of the experiment.
        tries: of each fault.
        seed: of the moments.
    """

    def __init__(self, stack: Stack, data: Path, overrides: str, tries: int, seed: int) -> None:
        self._stack = stack
        self._data = data
        self._overrides = (*overrides.split(), *_OVERRIDES.split())
        self._tries = tries
        self._chance = random.Random(seed)
        self._trainings = 0
        self._swaps = Swaps(stack, data / "releases", self._chance)
        self._slowest = 0.0

    def follow(self, phase: Phase) -> None:
        """Kill one after the other.

        Args:
            phase: measures one, by its name.

        Raises:
            AssertionError: something is not as it should be.
            TimeoutError: it does not become so.
        """
        for name, strike in (
            ("the run is killed", self._kill_run),
            ("the code location is killed", lambda run: self._stack.kill("code-location")),
        ):
            with phase(f"{name} in fit: the run is marked, launched again, and resumes"):
                for _ in range(self._tries):
                    self._resumes(self._dies(strike))
        with phase("the code location gets SIGTERM in fit: the run ends, the next one resumes"):
            for _ in range(self._tries):
                self._is_stopped()
        with phase("daemon, webserver and MLflow are killed in fit: the run goes on"):
            for _ in range(self._tries):
                self._goes_on()
        with phase("Postgres is killed in fit: the run goes on, or is launched again"):
            for _ in range(self._tries):
                self._loses_postgres()
        for service in ("daemon", "code-location"):
            with phase(f"{service} is killed before a run is taken from the queue"):
                for _ in range(self._tries):
                    self._queued(service)
        with phase("the service is killed while it loads another model"):
            usual, swaps = self._swaps.undisturbed(), 5 * self._tries
            hits = sum(self._swaps.killed(usual) for _ in range(swaps))
            self._stack.report(f"of {swaps} kills {hits} came before the new model served")
            assert hits, "no kill came while a model was loaded"
        self._stack.report(
            f"each run was over in Dagster and MLflow at most {self._slowest:.1f} s after its "
            f"process was gone; promised are {_PROMISED_SECONDS} s"
        )

    def _dies(self, strike: Callable[[str], None]) -> str:
        run = self._in_fit()
        struck = time.monotonic()
        strike(run)
        self._ends(run)
        self._stack.report(f"over {time.monotonic() - struck:.1f} s after the kill")
        assert self._stack.status(run) == "FAILURE"
        tracked = self._stack.tracked(run)
        assert tracked, "MLflow does not know the run"
        assert set(tracked.values()) <= {"KILLED", "FAILED"}, tracked
        return run

    def _is_stopped(self) -> None:
        run = self._dies(self._terminate)
        said: list[str] = []
        # The daemon launches it again, in vain if the code location is still about to end.
        for again in self._stack.retries(run):
            self._ends(again)
            said += self._said(again)
        self._completes(self._stack.launch(*self._overrides, f"seed={self._trainings}"), said)

    def _terminate(self, run: str) -> None:
        """Stop the code location; the run in fit must have written a checkpoint before its end."""
        since = time.time()
        written: list[float] = []
        self._stack.restart(
            "code-location",
            lambda: written.extend(path.stat().st_mtime - since for path in self._checkpoints()),
        )
        self._stack.report(f"its last checkpoint is from {max(written):.1f} s after SIGTERM")
        assert max(written) > 0, self._said(run)

    def _goes_on(self) -> None:
        run = self._in_fit()
        for service in self._chance.sample(("daemon", "webserver", "mlflow"), 3):
            self._stack.kill(service)
        self._ends(run)
        assert self._stack.status(run) == "SUCCESS", self._said(run)
        tracked = self._stack.tracked(run)
        # The probe draws nothing: another seed does not train it again.
        assert {"retrain", "convnext_model"} <= tracked.keys(), tracked
        assert set(tracked.values()) == {"FINISHED"}, tracked

    def _loses_postgres(self) -> None:
        run = self._in_fit()
        self._stack.kill("postgres")
        self._ends(run)
        status = self._stack.status(run)
        self._stack.report(f"the run without Postgres: {status}")
        if status != "SUCCESS":
            self._resumes(run)

    def _queued(self, service: str) -> None:
        run = self._stack.launch(*self._new())
        self._stack.kill(service)
        self._ends(run)
        started = "RunStartEvent" in {event["__typename"] for event in self._stack.events(run)}
        if self._stack.status(run) == "FAILURE" and started:
            self._queued(service)  # its turn came first, and its process died with its parent
            return
        assert self._stack.status(run) == "SUCCESS", self._said(run)

    def _new(self) -> tuple[str, ...]:
        """Overrides of a training that has not been done."""
        self._trainings += 1
        return *self._overrides, f"seed={self._trainings}"

    def _in_fit(self) -> str:
        """A run at a random moment of its fit."""
        before = set(self._checkpoints())
        run = self._stack.launch(*self._new())
        self._stack.until(
            lambda: bool(set(self._checkpoints()) - before), 300, f"the run {run} trains"
        )
        delay = self._chance.uniform(0, _LATEST_SECONDS)
        time.sleep(delay)
        self._stack.report(f"struck after {delay:.1f} s")
        return run

    def _checkpoints(self) -> list[Path]:
        return list(self._data.glob("work/*/last.ckpt"))

    def _ends(self, run: str) -> None:
        """Wait until its process is gone; then Dagster and MLflow must show its end, as promised.

        By then the code location runs.
        """
        lock = self._data / "dagster/storage/running" / run

        def ended() -> bool:
            return self._stack.status(run) in ENDED

        def gone() -> bool:
            # Before it has a lock it waits, or starts.
            return ended() or (lock.exists() and self._process(run) is None)

        self._stack.until(gone, 900, f"the process of the run {run} is gone")
        took = self._stack.until(
            lambda: ended() and "RUNNING" not in self._stack.tracked(run).values(),
            _PROMISED_SECONDS,
            "the run has ended in Dagster and in MLflow",
        )
        self._slowest = max(self._slowest, took)

    def _resumes(self, run: str) -> None:
        """The daemon launches a killed run again, and that one resumes."""
        self._stack.until(lambda: bool(self._stack.retries(run)), 120, "it is launched again")
        [again] = self._stack.retries(run)
        self._completes(again, [])

    def _completes(self, again: str, before: list[str]) -> None:
        """A run succeeds; it, or one that has said something before, has resumed."""
        self._ends(again)
        said = [*before, *self._said(again)]
        assert self._stack.status(again) == "SUCCESS", said
        # Or the fit had ended before the kill.
        trained = any(line.startswith("epoch") for line in said)
        assert not trained or any("resuming from" in line for line in said), said

    def _said(self, run: str) -> list[str]:
        return [event.get("message") or "" for event in self._stack.events(run)]

    def _kill_run(self, run: str) -> None:
        process = self._process(run)
        assert process is not None, f"no process holds the lock of the run {run}"
        os.kill(process, signal.SIGKILL)

    @staticmethod
    def _process(run: str) -> int | None:
        """The process that holds the run's lock, if there is one."""
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):
                if link.readlink().match(f"running/{run}"):
                    return int(link.parts[2])
        return None
