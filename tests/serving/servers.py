"""A ``cxr serve`` in a process of its own."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from command import CXR
from net import free_port
from prometheus_client.parser import text_string_to_metric_families


@dataclass
class Server:
    """One of them, and a client of it."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    port: int
    data_root: Path
    log_file: Path
    headers: dict[str, str] = field(default_factory=dict)

    def log(self) -> str:
        return self.log_file.read_text()

    def requests(self) -> list[dict[str, Any]]:
        """The lines of the log that report a request."""
        lines = [json.loads(line) for line in self.log().splitlines()]
        return [line for line in lines if line["message"] == "request"]

    def samples(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """The metrics, by name and values of the labels."""
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(self.client.get("/metrics").text)
            for sample in family.samples
        }

    def predict(self, image: bytes, **options: object) -> httpx.Response:
        return self.client.post("/predict", files={"file": ("image.jpeg", image)}, **options)

    def wait(self, met: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def wait_for_version(self, version: str, seconds: float = 60) -> None:
        def serves() -> bool:
            answer = self.client.get("/ready")
            return answer.status_code == 200 and answer.json()["model"]["version"] == version

        self.wait(serves, seconds)


@contextmanager
def running() -> Iterator[Callable[..., Server]]:
    """What starts them; all end with the context."""
    servers: list[Server] = []

    def start(folder: Path, **settings: object) -> Server:
        port = free_port()
        data_root = folder / "data"
        log_file = folder / "server.log"
        environment = {
            **os.environ,
            "CXR_DATA_ROOT": str(data_root),
            "CXR_PORT": str(port),
            "CXR_THREADS": "1",
            "CXR_POLL_SECONDS": "0.2",
            **{f"CXR_{name.upper()}": str(value) for name, value in settings.items()},
        }
        with log_file.open("wb") as log:
            process = subprocess.Popen([CXR, "serve"], env=environment, stdout=log, stderr=log)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        server = Server(process, client, port, data_root, log_file)
        servers.append(server)

        def alive() -> bool:
            try:
                return client.get("/health").status_code == 200
            except httpx.TransportError:
                return False

        server.wait(alive, 120)
        return server

    try:
        yield start
    finally:
        for server in servers:
            server.client.close()
            server.process.send_signal(signal.SIGTERM)
        for server in servers:
            server.process.wait(20)
