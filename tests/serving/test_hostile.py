"""Broken and malicious uploads, a few of the thousands that `benchmarks.serving.hostile` sends."""

from typing import Any

from benchmarks.serving.exchange import fault, send
from benchmarks.serving.uploads import uploads


def test_no_upload_breaks_the_service(ready_server: Any, image: bytes) -> None:
    before = ready_server.predict(image).json()["probs"]
    faults = []
    for upload in uploads(200):
        found = fault(upload, send(ready_server.port, upload))
        if found:
            faults.append((upload.name, found))
    assert faults == []
    assert ready_server.predict(image).json()["probs"] == before
    assert "Traceback" not in ready_server.log()
