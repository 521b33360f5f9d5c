"""The log of a running service: what it has, and what it must not have."""

import json
from typing import Any

import pytest
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from cxr_serving.http import upload


def test_log_has_requests_and_never_their_bodies(ready_server: Any) -> None:
    ready_server.predict(b"Jane Doe, born 2019", headers={"X-Request-ID": "logged-1"})
    ready_server.wait(lambda: "logged-1" in ready_server.log(), 30)
    [line] = [line for line in ready_server.requests() if line["request_id"] == "logged-1"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/predict", 415)
    assert "Jane Doe" not in ready_server.log()
    assert "image.jpeg" not in ready_server.log()


def test_every_line_is_a_json_object(ready_server: Any) -> None:
    ready_server.predict(b"no image")
    for line in ready_server.log().splitlines():
        assert {"time", "level", "logger", "message"} <= json.loads(line).keys()


def test_broken_forms_are_not_quoted_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Even if another server runs the application, with its own logging."""
    assert upload.FIELD  # the module silences the parser
    parser = MultipartParser(b"x", {})
    with pytest.raises(FormParserError):
        parser.write(b"Jane Doe, born 2019")
    assert caplog.text == ""
