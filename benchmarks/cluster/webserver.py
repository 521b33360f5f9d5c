"""A run that is launched in Dagster's UI: by a request to its webserver."""

import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dagster_graphql import DagsterGraphQLClient

from benchmarks.cluster.place import PATIENCE, Place
from benchmarks.serving.server import free_port

_MODULE = "cxr_assets.definitions"


class Requested:
    """A run that a webserver has launched.

    Args:
        client: of the webserver.
        asset: to materialise.
        pid: of the webserver.
    """

    def __init__(self, client: DagsterGraphQLClient, asset: str, pid: int) -> None:
        self.pid = pid
        self._client = client
        self._id = client.submit_job_execution(
            "__ASSET_JOB",
            repository_location_name=_MODULE,
            repository_name="__repository__",
            asset_selection=[asset],
        )

    def terminate(self) -> None:
        """As the button *Terminate* does."""
        self._client.terminate_run(self._id)

    def poll(self) -> str | None:
        """Its status, once it has ended."""
        status: str = self._client.get_run_status(self._id).value
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

    def wait(self, timeout: float) -> None:
        """Return once it has ended.

        Raises:
            TimeoutError: it has not after so many seconds.
        """
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the run has not ended after {timeout} s")
            time.sleep(0.5)


@contextmanager
def requested(place: Place, asset: str) -> Iterator[Requested]:
    """Launch a run through a webserver, which ends with the context."""
    port = free_port()
    webserver = Path(sys.executable).parent / "dagster-webserver"
    process = place.start([str(webserver), "-m", _MODULE, "-p", str(port)])
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(place.log.read_text()[-5000:])
            time.sleep(0.5)
        client = DagsterGraphQLClient("127.0.0.1", port_number=port)
        yield Requested(client, asset, process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=10).close()
    except OSError:
        return False
    return True
