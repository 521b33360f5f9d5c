"""The hospital, the pipeline, the service and the receiver of messages, in simulated time."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks.serving.server import OURS, Server, free_port, serve
from benchmarks.unattended.clock import Clock
from benchmarks.unattended.hospital import Hospital
from benchmarks.unattended.page import Week
from benchmarks.unattended.pipeline import CHECKOUT, Pipeline, Run
from cxr_serving.model import store

sys.path.insert(0, str(CHECKOUT / "tests"))

import receivers

_KEY = "0123456789abcdef0123456789abcdef"
_SCHEDULE = "weekly_retrain"
# As ModelOld of deploy/alerts.yml and the freshness policies say.
STALE_DAYS = 9
# What a run without changes may take, of processor time and on a quiet machine.
UNCHANGED_SECONDS = 30


class Operation:
    """All of it; weeks begin, get their runs, and end.

    Args:
        root: a new folder.
        patients: of each class.
        overrides: of the experiment.
        patience: how many times longer than on a quiet machine everything may take.
    """

    def __init__(
        self, root: Path, patients: int, overrides: Iterable[str], patience: float
    ) -> None:
        root.mkdir(parents=True)
        self.hospital = Hospital(root, patients)
        self._overrides = [*self.hospital.overrides, *overrides]
        # A quarter ago: files, whose times are real, would seem old to a simulated future.
        saturday = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
        saturday -= timedelta(weeks=14, days=saturday.isoweekday() - 6)
        self._clock = Clock(root / "clock", saturday)
        self.first = saturday + timedelta(hours=15)
        self._port = free_port()
        (root / "keys").write_text(f"operator {_KEY}\n")
        self._stack = ExitStack()
        url, self._messages = self._stack.enter_context(receivers.webhook())
        environment = {
            **self._clock.environment,
            "CXR_EXPERIMENT": "scratch",
            "CXR_SERVICE_URL": f"http://127.0.0.1:{self._port}",
            "CXR_NOTIFY_URLS": url,
            "OMP_NUM_THREADS": "1",
        }
        self.pipeline = Pipeline(root, environment, patience)
        self.layout = self.pipeline.layout
        self.week = Week(0, saturday, "")
        self._known: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.push(self._stack)
            self._server = stack.enter_context(self._service())
            stack.enter_context(self.pipeline)
            self.deploy()
            # The schedule counts from when the daemon has seen it first.
            self.pipeline.until(lambda: _SCHEDULE in self._seen(), 120, "the daemon's first look")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @contextmanager
    def _service(self) -> Iterator[Server]:
        environment = {
            "CXR_DATA_ROOT": str(self.layout.root),
            "CXR_PORT": str(self._port),
            "CXR_FOLLOW": "released",
            "CXR_POLL_SECONDS": "0.2",
            "CXR_ADMIN_KEYS_FILE": str(self.pipeline.root / "keys"),
        }
        with serve(OURS, self.pipeline.root, self._port, environment, "/health") as server:
            yield server

    def deploy(self, *overrides: str, code: Path = CHECKOUT) -> None:
        """Stop code location and daemon, and start them with other settings or another version."""
        self.pipeline.stop()
        settings = " ".join([*self._overrides, *overrides])
        self.pipeline.start(code, CXR_OVERRIDES=settings)

    def begin(self, plan: str) -> Week:
        """The next week."""
        number = self.week.number + 1
        self.week = Week(number, self.first + timedelta(weeks=number - 1), plan)
        return self.week

    def sunday(self) -> Run:
        """It is Sunday morning, and the schedule starts a run."""
        self._clock.set(self.week.sunday - timedelta(minutes=1))
        return self.follow()

    def follow(self) -> Run:
        """The next run that the daemon starts, when it and its process have ended."""
        pipeline = self.pipeline
        before = pipeline.processor_seconds
        run = pipeline.next_run(self._known)
        pipeline.until(lambda: pipeline.processor_seconds > before, 60, "the end of its process")
        run = replace(run, processor_seconds=pipeline.processor_seconds - before)
        self._known.append(run.id)
        self.week.runs.append(run)
        if release := run.assets.get("hf_release"):
            self.week.decision = release["decision"]
        return run

    def later(self, **ahead: float) -> None:
        """So much later, when every sensor has looked again."""
        self._clock.set(self._clock.now + timedelta(**ahead))
        self._look()

    def end(self) -> None:
        """It is Saturday: see what serves, and who was notified of what until then."""
        week = self.week
        following = self.first + timedelta(weeks=week.number)
        self.skip_to(following - timedelta(hours=6))
        self._look()
        week.released = store.read_pointer(self.layout.releases)
        expected = None if week.pinned else week.released
        if expected:
            self.pipeline.until(lambda: self.serves() == expected, 60, f"{expected} serves")
        week.served = self.serves()
        confirmed = self.metric("cxr_model_confirmed_timestamp_seconds")
        week.age = (following.timestamp() - confirmed) / timedelta(days=1).total_seconds()
        week.messages += self.titles
        self._messages.clear()

    @property
    def titles(self) -> list[str]:
        """Of this week's messages so far."""
        return [one["title"] for one in self._messages]

    @property
    def idle(self) -> bool:
        """Whether there is no run but those that were followed."""
        return set(self.pipeline.known()) == set(self._known)

    def skip_to(self, moment: datetime) -> None:
        """Set the clock forward, and wait for nothing."""
        self._clock.set(moment)

    def notified(self, title: str) -> None:
        """Wait until somebody was notified, as this week must have it, once for each call."""
        expected = self.week.expected
        expected.append(title)
        self.pipeline.until(
            lambda: self.titles.count(title) >= expected.count(title), 60, f"message {title!r}"
        )

    def serves(self) -> str | None:
        """The version that the service answers with."""
        answer = self._server.client.get("/model")
        return None if answer.status_code == 503 else str(answer.json()["model"]["version"])

    def metric(self, name: str) -> float:
        """A metric of the service."""
        return self._server.total(name)

    @property
    def port(self) -> int:
        """Of the service."""
        return self._port

    def pin(self, version: str | None) -> None:
        """Let the service answer with this version, or follow the releases again."""
        answer = self._server.client.post(
            "/model/pin" if version else "/model/unpin",
            headers={"Authorization": f"Bearer {_KEY}"},
            json={"version": version} if version else None,
        )
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(answer.text)

    def _seen(self) -> dict[str, Any]:
        states = self.pipeline.instance.all_instigator_state()
        return {state.instigator_name: state.instigator_data for state in states}

    def _look(self) -> None:
        """Return when every sensor has looked once more."""
        since = self._clock.now.timestamp()
        self.pipeline.until(lambda: self._looked(since), 60, "the next look of the sensors")

    def _looked(self, since: float) -> bool:
        data = [one for one in self._seen().values() if hasattr(one, "last_tick_timestamp")]
        return all((one.last_tick_timestamp or 0) >= since for one in data)
