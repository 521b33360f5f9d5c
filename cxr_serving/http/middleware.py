"""What surrounds every request: id, log line, metrics, headers, unexpected errors."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr_serving.http.errors import error_response
from cxr_serving.http.metrics import Metrics

REQUEST_ID_HEADER = "X-Request-ID"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# The page has no inline script or style, loads nothing from elsewhere, and may not be framed.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_NO_ANSWER = 499  # nginx's status when the client has left; it is logged, never sent

logger = logging.getLogger(__name__)


class RequestMiddleware:
    """ASGI middleware that identifies, times, logs, counts and secures requests.

    Bodies are never logged.

    The client's ``X-Request-ID`` is kept if it has at most 128 letters, digits, dots, dashes and
    underscores; otherwise a new one is made. It is in ``request.state.request_id`` and in the
    answer's header. An unhandled exception becomes a 500 in the one error shape.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            # Answered as GET is (RFC 9110, 9.3.2); the server, whose scope this is not, leaves out
            # the body. So no route, and no OpenAPI document, has to say so.
            scope = {**scope, "method": "GET"}
        request_id = _request_id(Headers(scope=scope))
        started = time.monotonic()
        scope.setdefault("state", {}).update(request_id=request_id, started=started)
        status = _NO_ANSWER

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                headers.setdefault("Cache-Control", "no-store")
                headers.update(_HEADERS)
            await send(message)

        self._metrics.requests_in_progress.inc()
        try:
            await self._app(scope, receive, send_identified)
        except ClientDisconnect:
            pass
        except Exception:
            logger.exception("unexpected error", extra={"request_id": request_id})
            if status != _NO_ANSWER:
                raise
            response = error_response(
                request_id,
                500,
                "internal_error",
                "unexpected error: look in the log of the service for this request id",
            )
            await response(scope, receive, send_identified)
        finally:
            self._metrics.requests_in_progress.dec()
            self._record(scope, method, status, time.monotonic() - started, request_id)

    def _record(
        self, scope: Scope, method: str, status: int, seconds: float, request_id: str
    ) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, status).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        logger.info(
            "request",
            extra={
                "request_id": request_id,
                "method": method,
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 1),
            },
        )


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
