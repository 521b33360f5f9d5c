"""A Redis server of one's own on loopback."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from net import free_port

PROGRAM = shutil.which("redis-server")


class RedisServer:
    """``redis-server`` on a port that stays the same; it writes nothing to disk."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._command = [str(PROGRAM), "--bind", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--save", "", "--appendonly", "no", *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
            except OSError:
                assert self._process.poll() is None, "redis-server has ended"
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)


@contextmanager
def running(*options: str) -> Iterator[RedisServer]:
    """A server that answers, until the block ends."""
    server = RedisServer(*options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
