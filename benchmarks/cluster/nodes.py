"""A Ray cluster of two nodes on this machine, at addresses of its loopback interface."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request

# Seconds in which a node starts: a dozen processes, on cores that others use, too.
_START = 300
# Below the range from which Linux gives ports to clients.
_PORT, _DASHBOARD = 26379, 28265
_TOKEN = "RAY_AUTH_TOKEN"


class Nodes:
    """The processes of both nodes; each node is a process group of its own.

    Args:
        folder: for Ray's logs and sockets; sockets allow about 60 characters.

    Attributes:
        address: of the dashboard.
    """

    address = f"http://127.0.0.1:{_DASHBOARD}"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        """Start the nodes that do not run: ``head`` first, then ``worker``."""
        if "head" not in self._running:
            self.stop()  # a node joins no other head
        for name in names or ("head", "worker"):
            if name in self._running:
                continue
            where: tuple[str, ...] = (
                *("--head", f"--port={_PORT}", "--dashboard-host=127.0.0.1"),
                *(f"--dashboard-port={_DASHBOARD}", f"--temp-dir={self._folder}"),
            )
            if name != "head":
                where = (f"--address=127.0.0.2:{_PORT}",)
            number = 2 if name == "head" else 3
            log = (self._folder / f"{name}.log").open("ab")
            self._running[name] = subprocess.Popen(
                [
                    *(str(Path(sys.executable).parent / "ray"), "start", "--block", *where),
                    *(f"--node-ip-address=127.0.0.{number}", "--num-cpus=2"),
                    *("--object-store-memory=100000000", "--disable-usage-stats"),
                    f"--dashboard-agent-listen-port={_DASHBOARD + number}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "RAY_health_check_initial_delay_ms": "60000",
                    "RAY_worker_niceness": "0",
                },
                start_new_session=True,
            )
            self._wait_for(name)

    def kill(self, name: str) -> None:
        """Kill all processes of a node at once, as when its machine fails."""
        node = self._running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def freeze(self, name: str) -> None:
        """Stop all processes of a node, which keep their connections, until it is killed."""
        os.killpg(self._running[name].pid, signal.SIGSTOP)
        self._running[f"frozen {name}"] = self._running.pop(name)

    def stop(self) -> None:
        """Kill all nodes."""
        for name in list(self._running):
            self.kill(name)

    def alive(self) -> int:
        """How many nodes the cluster has; 0 if it does not answer."""
        try:
            with self._get("/nodes?view=summary") as reply:
                nodes = json.load(reply)["data"]["summary"]
        except (OSError, ValueError, KeyError):
            return 0
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    def jobs(self) -> list[str]:
        """Names of the jobs that have not ended, if the cluster answers."""
        try:
            with self._get("/api/jobs/") as reply:
                jobs = json.load(reply)
        except (OSError, ValueError):
            return []
        running = ("PENDING", "RUNNING")
        return [job["submission_id"] for job in jobs if job["status"] in running]

    def _get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {os.environ[_TOKEN]}"}
        return urllib.request.urlopen(Request(self.address + path, headers=headers), timeout=10)

    def _wait_for(self, name: str) -> None:
        deadline = time.monotonic() + _START
        while self.alive() < len(self._running):
            if self._running[name].poll() is not None or time.monotonic() > deadline:
                log = (self._folder / f"{name}.log").read_text()
                raise RuntimeError(f"the {name} node of the cluster did not start: {log[-2000:]}")
            time.sleep(1)


def working() -> dict[int, str]:
    """Process ids of all jobs and workers of this project's steps, on both nodes."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended
            continue
        if words.startswith(("ray::MapWorker", "ray::RayTrainWorker", "ray::_trial")) or (
            "-m cxr_assets.cluster.job" in words and not words.startswith("/bin/sh")
        ):
            found[int(path.parent.name)] = words
    return found


@contextmanager
def nodes(folder: Path) -> Iterator[Nodes]:
    """Both nodes, until the end of the context; only who has their token may use them."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"RAY_AUTH_MODE": "token", _TOKEN: secrets.token_hex(32)}
    cluster = Nodes(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
