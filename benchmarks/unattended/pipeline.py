"""Code location and daemon as processes of their own, and what their runs came to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient

from benchmarks.serving.server import free_port
from cxr_assets.layout import Layout

CHECKOUT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_POLL_SECONDS = 0.5
_CODE = "code-location"
_STOP_SECONDS = 60
_WORKSPACE = """load_from:
  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: cxr}}
"""


class Late(Exception):
    """Something did not happen in time, or a process ended; the message says what, and where."""


def ended_by_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that it stops all that it has started."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


@dataclass(frozen=True)
class Run:
    """A retraining that has ended.

    Attributes:
        id: of Dagster.
        by: the schedule or sensor that started it; None for a person.
        status: of Dagster.
        seconds: from its entry into the queue to its end, of real time.
        assets: metadata by name of each asset that it materialised.
        processor_seconds: of its process; 0 where it was not measured.
    """

    id: str
    by: str | None
    status: str
    seconds: float
    assets: dict[str, dict[str, Any]]
    processor_seconds: float = 0

    @property
    def trained(self) -> list[str]:
        """The models that it made, instead of reusing them."""
        return sorted(
            name for name, found in self.assets.items() if found.get("outcome") == "published"
        )


class Pipeline:
    """The pipeline below a folder, started and stopped as an operator does.

    Args:
        root: data root, logs and Dagster's records go there.
        environment: of all its processes, besides this one's.
        patience: how many times longer than on a quiet machine everything may take.
    """

    def __init__(self, root: Path, environment: Mapping[str, str], patience: float) -> None:
        self.root = root
        self.layout = Layout(root / "data")
        self.patience = patience
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        home = root / "dagster"
        for folder in (home, self.layout.root, root / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        (home / "dagster.yaml").symlink_to(CHECKOUT / "dagster.yaml")
        self._workspace = root / "workspace.yaml"
        self._workspace.write_text(_WORKSPACE.format(port=self.port))
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CXR_")}
        self._environment = {
            **clean,
            "CXR_DATA_ROOT": str(self.layout.root),
            "DAGSTER_HOME": str(home),
            "TMPDIR": str(root / "tmp"),
            **environment,
        }

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """Its records."""
        return dg.DagsterInstance.from_config(self._environment["DAGSTER_HOME"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self.instance.dispose()

    def start(self, code: Path = CHECKOUT, **environment: str) -> None:
        """Start the code location, then the daemon.

        Args:
            code: holds the packages that it runs.
            environment: that replaces that of the last start.
        """
        paths = [path for path in (self._environment.get("PYTHONPATH"), str(code)) if path]
        self._environment |= environment
        changed = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
        server = ("api", "grpc", "--module-name", "cxr_assets.definitions", "--host", "127.0.0.1")
        self.launch(
            _CODE,
            *("dagster", *server, "--port", str(self.port), "--location-name", "cxr"),
            **changed,
        )
        self.until(self._answers, 120, "the code location")
        self.start_daemon()

    def _answers(self) -> bool:
        try:
            DagsterGrpcClient(port=self.port, host="127.0.0.1").ping("")
        except DagsterUserCodeUnreachableError:
            return False
        return True

    def start_daemon(self) -> None:
        """Start the daemon alone."""
        self.launch("daemon", "dagster-daemon", "run", "--workspace", str(self._workspace))

    def launch(self, name: str, program: str, *arguments: str, **environment: str) -> None:
        """Start a process that logs to a file of its own."""
        with (self.root / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [_BIN / program, *arguments],
                cwd=self.root,
                env=self._environment | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, *names: str) -> None:
        """Stop these processes, or all; the last one started first."""
        for name in names or list(reversed(self.processes)):
            process = self.processes.pop(name)
            if name == _CODE:
                # It does not end by SIGTERM.
                DagsterGrpcClient(port=self.port, host="127.0.0.1").shutdown_server()
            else:
                process.terminate()
            try:
                process.wait(_STOP_SECONDS * self.patience)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def command(self, program: str, *arguments: str) -> None:
        """Run a command as a person does.

        Raises:
            Late: it failed.
        """
        done = subprocess.run(
            [_BIN / program, *arguments],
            cwd=self.root,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Late(f"{program} {' '.join(arguments)}: {done.stderr[-2000:]}")

    def sensor(self, name: str) -> None:
        """Turn on a sensor."""
        self.command("dagster", "sensor", "start", name, "--workspace", str(self._workspace))

    def until(self, true: Callable[[], object], seconds: float, what: str) -> None:
        """Return once it is ``true``.

        Raises:
            Late: it is not, after so many seconds of a quiet machine, or a process has ended.
        """
        deadline = time.monotonic() + seconds * self.patience
        while not true():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise Late(f"{name} has ended: see {self.root}/{name}.log")
            if time.monotonic() > deadline:
                raise Late(f"{what}: not within {seconds * self.patience:g} s")
            time.sleep(_POLL_SECONDS)

    @property
    def processor_seconds(self) -> float:
        """Processor time of all runs that the code location has started, once they are gone."""
        stat = Path(f"/proc/{self.processes[_CODE].pid}/stat").read_text().rpartition(")")[2]
        # User and system time of the children that it has waited for: see proc(5).
        return sum(map(int, stat.split()[13:15])) / os.sysconf("SC_CLK_TCK")

    def known(self) -> list[str]:
        """Ids of all runs, oldest first."""
        return [run.run_id for run in reversed(list(self.instance.get_runs()))]

    def next_run(self, known: list[str], seconds: float = 300) -> Run:
        """The run that is not among the known ones, when it has ended.

        Raises:
            Late: there is none, or it does not end.
        """
        self.until(lambda: set(self.known()) - set(known), 120, "a run in the queue")
        (new,) = set(self.known()) - set(known)
        return self.ended(new, seconds)

    def queued(self, run_id: str) -> bool:
        """Whether a run still waits."""
        run = self.instance.get_run_by_id(run_id)
        return run is not None and run.status is dg.DagsterRunStatus.QUEUED

    def finished(self, run_id: str) -> bool:
        """Whether a run has ended."""
        run = self.instance.get_run_by_id(run_id)
        return run is not None and run.is_finished

    def ended(self, run_id: str, seconds: float = 300) -> Run:
        """A run, when it has ended.

        Raises:
            Late: it does not end.
        """
        started = time.monotonic()
        self.until(lambda: self.finished(run_id), seconds, f"the end of run {run_id}")
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        events = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        made = [event.asset_materialization for event in events]
        return Run(
            run_id,
            run.tags.get("dagster/schedule_name") or run.tags.get("dagster/sensor_name"),
            run.status.value,
            time.monotonic() - started,
            {
                one.asset_key.to_user_string(): {
                    name: value.value for name, value in one.metadata.items()
                }
                for one in made
                if one is not None
            },
        )
