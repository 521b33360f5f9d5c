"""An upload, how it is sent to the service, and what may be answered."""

import http.client
import json
import math
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_PAUSE_SECONDS = 0.1
# Above any deadline of the service: who waits longer was forgotten.
_TIMEOUT_SECONDS = 90


@dataclass(frozen=True)
class Upload:
    """One request.

    Attributes:
        name: what is wrong with it.
        path: that it is sent to.
        make: the bytes of the request, in pieces that are sent with a pause between them.
        rejected: whether no image of it may be classified.
        form: whether the answer has the service's own form. Where the request is not HTTP, or too
            large to be read to its end, another 4xx or none will do.
        leaves: whether the client is gone before it can be answered.
        heavy: whether the service may give it up for want of time.
    """

    name: str
    path: str
    make: Callable[[], Sequence[bytes]] = field(repr=False)
    rejected: bool = False
    form: bool = True
    leaves: bool = False
    heavy: bool = False


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP, or 0 when none came.
        content_type: of the body.
        body: of the answer.
        seconds: from the first byte sent to the last received.
    """

    status: int
    content_type: str
    body: bytes
    seconds: float


def send(port: int, upload: Upload) -> Answer:
    """Send an upload to the service on a loopback port."""
    pieces = upload.make()
    started = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_SECONDS) as connection:
        response = http.client.HTTPResponse(connection)
        try:
            for index, piece in enumerate(pieces):
                if index:
                    time.sleep(_PAUSE_SECONDS)
                connection.sendall(piece)
        except OSError:
            pass  # answered, and closed, before all was sent
        if upload.leaves:
            return Answer(0, "", b"", time.perf_counter() - started)
        try:
            response.begin()
            status, body = response.status, response.read()
        except (OSError, http.client.HTTPException):
            return Answer(0, "", b"", time.perf_counter() - started)
    kind = response.headers.get_content_type()
    return Answer(status, kind, body, time.perf_counter() - started)


def fault(upload: Upload, answer: Answer) -> str | None:
    """What is wrong with an answer, or None.

    No answer may be a 5xx or show a traceback; each has the form of the service's answers or
    errors; and what must be rejected is.
    """
    if answer.status >= 500 and not (upload.heavy and answer.status == 504):
        return f"status {answer.status}: {answer.body[:300]!r}"
    if b"Traceback" in answer.body or b"site-packages" in answer.body:
        return f"shows its inside: {answer.body[:300]!r}"
    if answer.seconds >= _TIMEOUT_SECONDS:
        return f"neither answered nor closed in {_TIMEOUT_SECONDS} s"
    if upload.leaves or not upload.form:
        return None
    if answer.status == 0:
        return "no answer"
    if answer.status == 200:
        return _classified_wrongly(upload, answer)
    try:
        body = json.loads(answer.body)
        well_formed = bool(
            body["error"]["code"] and body["error"]["message"] and body["request_id"]
        )
    except (ValueError, KeyError, TypeError):
        well_formed = False
    return None if well_formed else f"not the form of an error: {answer.body[:300]!r}"


def _classified_wrongly(upload: Upload, answer: Answer) -> str | None:
    if answer.content_type == "image/png":
        return "classified" if upload.rejected else None
    try:
        body = json.loads(answer.body)
        results = body.get("results", [body])
        predictions = [result.get("prediction", result) for result in results]
        found = [prediction for prediction in predictions if prediction is not None]
        sound = all(
            abs(math.fsum(prediction["probs"]) - 1) < 1e-3 and min(prediction["probs"]) >= 0
            for prediction in found
        ) and all(
            result["error"]["code"] and result["error"]["message"]
            for result in results
            if result.get("prediction", result) is None
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        sound, found = False, []
    if not sound:
        return f"not the form of an answer: {answer.body[:300]!r}"
    return "classified" if upload.rejected and found else None
