"""The one shape of the answer to a failed request."""

import httpx


def assert_error(answer: httpx.Response, status: int, code: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (status, code), body
    assert body["error"]["message"]
    assert body["request_id"] == answer.headers["X-Request-ID"]
