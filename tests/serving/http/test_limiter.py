"""The rate limit of replicas that share a Redis, also while it cannot be used."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer
from typing import Any

import pytest
import redis_server
from fastapi.testclient import TestClient
from net import served
from pydantic import RedisDsn
from redis_server import RedisServer

from cxr_serving.http import limiter
from cxr_serving.http.app import create_app
from cxr_serving.http.limiter import Limiter
from cxr_serving.http.metrics import Metrics
from cxr_serving.http.settings import Settings

pytestmark = pytest.mark.skipif(
    find_spec("redis") is None, reason="the client redis is not installed (extra: redis)"
)
needs_server = pytest.mark.skipif(
    redis_server.PROGRAM is None, reason="redis-server is not installed (Debian: redis-server)"
)
KEYS = {name: name * 16 for name in "abc"}
FALLBACKS = "cxr_rate_limit_fallbacks_total"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not taken for a Redis that hangs."""
    monkeypatch.setattr(limiter, "_SECONDS", 30)


class Replica:
    """An application that allows four requests a minute."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def get(self, owner: str) -> Any:
        return self.client.get("/models", headers={"Authorization": f"Bearer {KEYS[owner]}"})

    def send(self, owner: str = "a") -> int:
        """The status of the answer to a request."""
        status: int = self.get(owner).status_code
        return status

    def fallbacks(self) -> float:
        """Requests that it has counted for itself."""
        lines = self.client.get("/metrics").text.splitlines()
        [line] = [line for line in lines if line.startswith(FALLBACKS)]
        return float(line.split()[1])

    def shares(self) -> bool:
        """Whether a request is counted by Redis."""
        before = self.fallbacks()
        self.send("c")
        return self.fallbacks() == before


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Any]:
    """``start(url)`` is a context in which a replica runs."""
    file = tmp_path / "keys"
    file.write_text("".join(f"{name} {key}\n" for name, key in KEYS.items()))

    @contextmanager
    def replica(url: str) -> Iterator[Replica]:
        settings = Settings(
            data_root=tmp_path,
            keys_file=file,
            rate_limit="4/minute",
            rate_limit_storage=url,  # type: ignore[arg-type]
        )
        with TestClient(create_app(settings)) as client:
            yield Replica(client)

    return replica


def url(server: RedisServer, user: str = "") -> str:
    return f"redis://{user}127.0.0.1:{server.port}"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == limiter.__name__ and record.levelno == logging.WARNING
    ]


def wait(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@needs_server
def test_replicas_share_the_limit_of_each_key_and_a_restart_resets_nothing(
    start: Callable[..., Any],
) -> None:
    with redis_server.running() as server, start(url(server)) as first:
        with start(url(server)) as second:
            assert [replica.send() for replica in (first, second) * 2] == [200] * 4
            assert [replica.send() for replica in (first, second)] == [429] * 2
            assert second.send("b") == 200
        with start(url(server)) as restarted:
            answer = restarted.client.get(
                "/models", headers={"Authorization": "Bearer " + "a" * 16}
            )
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert [replica.send("b") for replica in (first, restarted) * 2] == [200] * 3 + [429]
            assert (first.fallbacks(), restarted.fallbacks()) == (0, 0)


@needs_server
def test_no_request_fails_without_redis_and_replicas_share_the_limit_once_it_is_back(
    start: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer()
    with ExitStack() as stack:
        stack.callback(server.kill)
        replicas = [stack.enter_context(start(url(server))) for _ in range(2)]
        assert len(warnings(caplog)) == 2, "both say it at the start"
        for outage in (1, 2):
            for replica in replicas:
                # Each counts for itself, from the start or once Redis is lost.
                assert [replica.send("ab"[outage - 1]) for _ in range(5)] == [200] * 4 + [429]
                assert replica.fallbacks() >= 5
            assert len(warnings(caplog)) == 2 * outage, "one for each replica"
            server.start()
            for replica in replicas:
                wait(replica.shares)
            statuses = [replica.send("ba"[outage - 1]) for replica in replicas * 3]
            assert statuses == [200] * 4 + [429] * 2
            server.kill()
    assert all(f"Redis at 127.0.0.1:{server.port}" in line for line in warnings(caplog))
    assert all("Connect call failed" in line for line in warnings(caplog)[:2])


@contextmanager
def silent() -> Iterator[tuple[int, list[socket.socket]]]:
    """A server that accepts connections and never answers: its port, and those connections."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connections.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], connections
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


def test_a_redis_that_hangs_delays_a_request_now_and_then_and_no_other(
    start: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter, "_SECONDS", 0.5)
    with silent() as (port, connections), start(f"redis://127.0.0.1:{port}") as replica:
        started = time.monotonic()
        for _ in range(100):
            assert replica.send() in (200, 429)
        # One at first, others after pauses of a second, two, four …
        assert len(connections) <= 2 + (time.monotonic() - started)
    assert [line.partition("(")[2].partition(")")[0] for line in warnings(caplog)] == [
        "no answer within 0.5 s"
    ]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$many\r\n"])
def test_what_is_no_redis_fails_no_request(
    start: Callable[..., Any], caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(2**16)
            self.request.sendall(answer)
            self.request.recv(2**16)  # nothing: the client has closed

    with (
        served(TCPServer(("127.0.0.1", 0), Handler)) as port,
        start(f"redis://127.0.0.1:{port}") as replica,
    ):
        assert [replica.send() for _ in range(5)] == [200] * 4 + [429]
    assert len(warnings(caplog)) == 1


@needs_server
def test_of_many_requests_at_once_as_many_are_admitted_as_the_limit_says() -> None:
    async def admitted(server: RedisServer) -> int:
        metrics = Metrics()
        limiters = [Limiter("20/minute", RedisDsn(url(server)), metrics) for _ in range(2)]
        waits = await asyncio.gather(*(one.wait("ward-3") for one in limiters * 50))
        for one in limiters:
            await one.close()
        assert f"{FALLBACKS} 0.0" in metrics.render().decode()
        return waits.count(0)

    with redis_server.running() as server:
        assert asyncio.run(admitted(server)) == 20


PASSWORD = "correct%20horse"  # a space


@needs_server
@pytest.mark.parametrize(
    ("options", "password", "reason"),
    [
        (["--requirepass", "correct horse"], PASSWORD, None),
        (["--requirepass", "battery staple"], PASSWORD, "AuthenticationError"),
        # Redis then repeats what it was sent in its answer.
        (["--rename-command", "AUTH", ""], PASSWORD, "ResponseError"),
        (["--requirepass", "correct horse"], "", "AuthenticationError"),
    ],
    ids=["right", "wrong", "unknown command", "none"],
)
def test_password_is_used_and_never_logged(
    start: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    options: list[str],
    password: str,
    reason: str | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        redis_server.running(*options) as server,
        start(url(server, password and f":{password}@")) as replica,
    ):
        assert replica.send() == 200
        assert (replica.fallbacks() == 0) is (reason is None)
    assert [reason in line for line in warnings(caplog)] == ([] if reason is None else [True])
    assert "horse" not in caplog.text
