"""A service of its own process, seen from outside; Linux only."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

OURS = (str(Path(sys.executable).with_name("cxr")), "serve")
_START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A service that answers.

    Attributes:
        process: the service.
        port: on loopback.
        client: sends requests to it.
        log: what it has written.
        start_seconds: from its start to its first good answer.
    """

    process: subprocess.Popen[bytes]
    port: int
    client: httpx.Client
    log: Path
    start_seconds: float

    @property
    def resident(self) -> int:
        """Memory that all of its processes hold now, in bytes; what they share counts once."""
        return sum(_memory(process, "smaps_rollup", "Pss") for process in _family(self.process.pid))

    @property
    def peak(self) -> int:
        """Most memory that it has held since :meth:`forget_peak`, in bytes.

        Of a child the most it ever held; children that ended are not counted.
        """
        return sum(_memory(process, "status", "VmHWM") for process in _family(self.process.pid))

    def forget_peak(self) -> None:
        """Let :attr:`peak` begin anew."""
        for process in _family(self.process.pid):
            Path(f"/proc/{process}/clear_refs").write_text("5")

    def total(self, metric: str, **labels: str) -> float:
        """Sum of the samples of a Prometheus metric that have these labels."""
        text = self.client.get("/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )

    def wait(self, met: Callable[[], bool], seconds: float = 120) -> None:
        """Return once ``met()``; fail with the service's log when it ends or takes longer."""
        _wait(self.process, met, seconds, self.log)


@contextmanager
def serve(
    arguments: Sequence[str],
    folder: Path,
    port: int,
    environment: Mapping[str, str] | None = None,
    ready: str = "/ready",
    directory: Path | None = None,
    python: Path | None = None,
) -> Iterator[Server]:
    """Run Python with ``arguments``, and wait until the service answers ``ready`` with 200.

    At the end all of its processes are killed: workers that outlive their parent would take the
    processors from whatever is measured next.

    Args:
        arguments: of the interpreter.
        folder: holds the service's log.
        port: that ``arguments`` or ``environment`` make it listen on.
        environment: added to this process's, without what sets up a service.
        ready: path that is answered with 200 when it can work.
        directory: that it runs in; None is this process's.
        python: that runs it; None is this process's.
    """
    # A service must see by itself to it that no library reports to its maker.
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CXR_") and name != "ORT_DISABLE_TELEMETRY"
    }
    log = folder / f"server-{port}.log"
    with (
        log.open("ab") as output,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
    ):
        started = time.perf_counter()
        process = subprocess.Popen(
            [python or sys.executable, *arguments],
            env={**clean, **(environment or {})},
            cwd=directory,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:

            def answers() -> bool:
                try:
                    return client.get(ready).status_code == 200
                except httpx.TransportError:
                    return False

            _wait(process, answers, _START_SECONDS, log)
            yield Server(process, port, client, log, time.perf_counter() - started)
        finally:
            family = list(_family(process.pid))
            process.terminate()
            try:
                process.wait(60)
            finally:
                for member in family:
                    with suppress(ProcessLookupError):
                        os.kill(member, signal.SIGKILL)
                # Also what was started since.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(
    process: subprocess.Popen[bytes], met: Callable[[], bool], seconds: float, log: Path
) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the service ended or took too long: {log.read_text()[-4000:]}")
        time.sleep(0.05)


def _family(process: int) -> Iterator[int]:
    """A process and all its descendants, which may have sessions of their own."""
    yield process
    for task in Path(f"/proc/{process}/task").glob("*"):
        # A thread, or the process, may have ended meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _memory(process: int, file: str, name: str) -> int:
    """Bytes of a file of ``/proc/PID``; 0 for a process that has ended."""
    try:
        text = Path(f"/proc/{process}/{file}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
