import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from net import free_port, wait_for_server


class Server:
    """A real MLflow server on loopback that can be killed and restarted.

    Args:
        folder: for its database, artifacts and log.
        seconds: that it may take to start.
    """

    def __init__(self, folder: Path, seconds: float = 120) -> None:
        self._folder = folder
        self._seconds = seconds
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "mlflow"),
                    "server",
                    "--workers=1",
                    f"--port={self._port}",
                    f"--backend-store-uri=sqlite:///{self._folder}/server.db",
                    f"--artifacts-destination={self._folder}/artifacts",
                ],
                # Otherwise it starts nine more processes, for what nothing here uses.
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        log = self._folder / "log"
        wait_for_server(self._process, f"{self.url}/health", log, self._seconds)

    def kill(self) -> None:
        """Kill it together with its worker, which would keep answering."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
