"""The request middleware and the error handlers around a small application that misbehaves."""

import logging
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from cxr_serving.http import errors
from cxr_serving.http.errors import ServiceError
from cxr_serving.http.metrics import Metrics
from cxr_serving.http.middleware import RequestMiddleware

MADE = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def client(metrics: Metrics) -> Iterator[TestClient]:
    app = FastAPI()
    app.add_middleware(RequestMiddleware, metrics=metrics)
    errors.install(app)

    @app.get("/id")
    async def identify(request: Request) -> str:
        request_id: str = request.state.request_id
        return request_id

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    @app.get("/busy")
    async def busy() -> None:
        raise ServiceError(503, "busy", "come back", {"Retry-After": "7"})

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("secret detail")

    @app.get("/crash-late")
    async def crash_late() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"begun"
            raise RuntimeError("secret detail")

        return StreamingResponse(body())

    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("given", ["abc", "A-b_c.9", "x" * 128])
def test_good_request_id_is_kept(client: TestClient, given: str) -> None:
    answer = client.get("/id", headers={"X-Request-ID": given})
    assert answer.json() == given
    assert answer.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "id=1", 'a"b', "a\tb"])
def test_bad_request_id_is_replaced(client: TestClient, given: str | None) -> None:
    answer = client.get("/id", headers={} if given is None else {"X-Request-ID": given})
    assert MADE.fullmatch(answer.json())
    assert answer.headers["X-Request-ID"] == answer.json()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/id", 405, "method_not_allowed"),
        ("GET", "/items/seven", 422, "invalid_request"),
        ("GET", "/busy", 503, "busy"),
        ("GET", "/crash", 500, "internal_error"),
    ],
)
def test_every_error_has_the_one_shape(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path, headers={"X-Request-ID": "r-1"})
    assert answer.status_code == status
    assert answer.headers["X-Request-ID"] == "r-1"
    body = answer.json()
    assert body.keys() == {"error", "request_id"}
    assert body["error"].keys() == {"code", "message"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert body["request_id"] == "r-1"


def test_headers_of_errors_are_kept(client: TestClient) -> None:
    assert client.get("/busy").headers["Retry-After"] == "7"
    assert client.post("/id").headers["Allow"] == "GET"


def test_crash_is_logged_and_its_message_kept_from_the_client(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/crash", headers={"X-Request-ID": "r-2"})
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.request_id == "r-2"
    assert record.exc_info is not None
    assert "secret detail" in str(record.exc_info[1])


def test_crash_after_the_answer_began_cuts_the_connection(client: TestClient) -> None:
    with pytest.raises(RuntimeError):
        client.get("/crash-late")


def test_requests_are_logged_and_counted_by_route(
    client: TestClient, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cxr_serving"):
        client.get("/items/7", headers={"X-Request-ID": "r-3"})
        client.get("/items/8")
        client.get("/nowhere/1")
        client.get("/nowhere/2")
    first = vars(caplog.records[0])
    assert first["message"] == "request"
    assert (first["method"], first["route"], first["status"], first["request_id"]) == (
        "GET",
        "/items/{number}",
        200,
        "r-3",
    )
    assert first["ms"] > 0
    text = metrics.render().decode()
    assert 'cxr_requests_total{route="/items/{number}",status="200"} 2.0' in text
    assert 'cxr_requests_total{route="other",status="404"} 2.0' in text
    assert 'cxr_request_seconds_count{route="/items/{number}"} 2.0' in text
