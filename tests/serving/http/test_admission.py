"""Key, size and time of a request come before its body, on every route of the document."""

import importlib
import json
import pkgutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from cxr_serving.http import routes
from cxr_serving.http.admission import GuardedRoute
from cxr_serving.http.app import create_app
from cxr_serving.http.settings import Settings

# An answer that waits for the body comes never, or when the deadline of 2 s is over.
AT_ONCE = 1.5
JSON = "application/json"
FORM = "multipart/form-data"


class Operation(NamedTuple):
    method: str
    path: str
    has_body: str | None
    needs_key: bool

    def head(self, *headers: str) -> bytes:
        kind = FORM + "; boundary=x" if self.has_body == FORM else self.has_body or JSON
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: x", f"Content-Type: {kind}"]
        return "\r\n".join([*lines, *headers, "", ""]).encode()


@pytest.fixture(scope="module")
def operations(hasty: Any) -> list[Operation]:
    document = hasty.client.get("/openapi.json").json()
    found = [
        Operation(
            method.upper(),
            path,
            next(iter(operation.get("requestBody", {}).get("content", {})), None),
            bool(operation.get("security")),
        )
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert {operation.has_body for operation in found} == {None, JSON, FORM}
    assert {operation.needs_key for operation in found} == {True, False}
    return found


class Client:
    """A connection that sends given bytes, and reports what was answered and when."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._started = time.monotonic()
        self.received = b""
        self.sent = 0

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)
        self.sent += len(data)

    def send_until_answered(self, data: bytes, most: int) -> None:
        self._connection.setblocking(False)
        rest = b""
        while self.sent < most:
            try:
                self.received += self._connection.recv(65536)
                break
            except BlockingIOError:
                pass
            rest = rest or data  # of a chunk that was sent in part
            try:
                number = self._connection.send(rest)
                self.sent, rest = self.sent + number, rest[number:]
            except BlockingIOError:
                time.sleep(0.001)
        self._connection.settimeout(20)

    def answer(self) -> tuple[int, str | None, float]:
        """Status, code of the error if it is one, and after how many seconds it came."""
        while b"\r\n\r\n" not in self.received:
            received = self._connection.recv(65536)
            assert received, "closed without an answer"
            self.received += received
        seconds = time.monotonic() - self._started
        head, _, body = self.received.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._connection.recv(65536)
        error = json.loads(body)["error"]["code"] if status >= 400 else None
        return status, error, seconds


@pytest.mark.parametrize(
    "header",
    ["Content-Length: 68719476736", "Transfer-Encoding: chunked"],
    ids=["declared", "chunked"],
)
@pytest.mark.parametrize("key", [(), ("Authorization: Bearer 0123456789abcdee",)])
def test_without_a_key_no_byte_of_a_body_is_read(
    hasty: Any, operations: list[Operation], header: str, key: tuple[str, ...]
) -> None:
    for operation in operations:
        with Client(hasty.port) as client:
            client.send(operation.head(header, "Expect: 100-continue", *key))
            status, code, seconds = client.answer()
        if operation.needs_key:
            assert (status, code) == (401, "unauthorized"), operation
        else:
            assert status == 200, operation
        assert seconds < AT_ONCE, operation


def test_huge_body_is_rejected_by_its_length_or_as_it_arrives(
    hasty: Any, operations: list[Operation]
) -> None:
    key = f"Authorization: {hasty.headers['Authorization']}"
    for operation in operations:
        if operation.has_body is None:
            continue
        with Client(hasty.port) as client:
            client.send(operation.head("Content-Length: 68719476736", "Expect: 100-continue", key))
            status, code, seconds = client.answer()
        assert (status, code, seconds < AT_ONCE) == (413, "upload_too_large", True), operation
        with Client(hasty.port) as client:
            client.send(operation.head("Transfer-Encoding: chunked", key))
            part = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
            client.send(b"%x\r\n%b\r\n" % (len(part), part))
            client.send_until_answered(b"8000\r\n" + bytes(0x8000) + b"\r\n", 64 * 2**20)
            status, code, seconds = client.answer()
        assert (status, code) == (413, "upload_too_large"), operation
        assert client.sent < 16 * 2**20, "the buffers of the system, and little more"


def test_slow_body_is_given_up_at_the_deadline(hasty: Any, operations: list[Operation]) -> None:
    key = f"Authorization: {hasty.headers['Authorization']}"

    def ask(operation: Operation) -> tuple[int, str | None, float]:
        with Client(hasty.port) as client:
            client.send(operation.head("Content-Length: 100", key) + b"-")
            return client.answer()

    with ThreadPoolExecutor(len(operations)) as clients:
        answers = list(clients.map(ask, operations))
    for operation, (status, code, seconds) in zip(operations, answers, strict=True):
        if operation.has_body is None:
            assert (status, seconds < AT_ONCE) == (200, True), operation
        else:
            assert (status, code) == (408, "upload_too_slow"), operation
            assert 1.9 < seconds < 10, operation


def test_only_guarded_routes_read_a_body() -> None:
    modules = [
        importlib.import_module(f"{routes.__name__}.{module.name}")
        for module in pkgutil.iter_modules(routes.__path__)
    ]
    found = [
        (module.__name__, route)
        for module in modules
        for router in vars(module).values()
        if isinstance(router, APIRouter)
        for route in router.routes
    ]
    assert len({module for module, _ in found}) == len(modules)
    for module, route in found:
        assert isinstance(route, APIRoute), (module, route)
        if not isinstance(route, GuardedRoute):
            assert (route.methods, route.body_field) == ({"GET"}, None), (module, route.path)


def test_no_other_path_or_method_waits_for_a_body(hasty: Any, operations: list[Operation]) -> None:
    pages = ("/", "/docs", "/openapi.json", "/static/main.js")
    paths = {operation.path for operation in operations}
    for status, method, path in [
        *((200, "GET", path) for path in pages),
        *((405, "POST", path) for path in pages),
        *((405, "PUT", path) for path in paths),
        *((404, method, "/nowhere") for method in ("GET", "POST", "PUT")),
    ]:
        head = Operation(method, path, FORM, False).head(
            "Content-Length: 68719476736", "Expect: 100-continue", "Connection: close"
        )
        with socket.create_connection(("127.0.0.1", hasty.port), timeout=20) as connection:
            connection.sendall(head)
            started = time.monotonic()
            answer = b""
            while not (final := answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")):
                received = connection.recv(65536)
                assert received, (method, path)
                answer += received
        assert int(final.split()[1]) == status, (method, path)
        assert time.monotonic() - started < AT_ONCE, (method, path)


def test_rate_limit_comes_before_the_body(tmp_path: Path) -> None:
    def untouched() -> Iterator[bytes]:
        pytest.fail("the body was read")
        yield b""

    client = TestClient(create_app(Settings(data_root=tmp_path, rate_limit="1/minute")))
    assert client.get("/models").status_code == 200
    for path in ("/predict", "/predict/batch", "/explain"):
        answer = client.post(path, content=untouched(), headers={"Content-Type": FORM})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")


def test_head_is_answered_as_get_without_the_body(hasty: Any, operations: list[Operation]) -> None:
    pages = [Operation("GET", path, None, False) for path in ("/", "/docs", "/static/main.js")]
    for operation in [*operations, *pages]:
        answer = hasty.client.head(operation.path, headers=hasty.headers)
        if operation.method != "GET":
            assert answer.status_code == 405, operation
            continue
        assert (answer.status_code, answer.content) == (200, b""), operation
        same = hasty.client.get(operation.path, headers=hasty.headers)
        assert answer.headers["Content-Type"] == same.headers["Content-Type"], operation
    assert hasty.client.head("/models").status_code == 401
    hasty.wait(lambda: any(line["method"] == "HEAD" for line in hasty.requests()), 10)
    document = hasty.client.get("/openapi.json").json()
    assert not any("head" in methods for methods in document["paths"].values())
