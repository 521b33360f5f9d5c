"""``cxr serve``: the service with the settings in the environment."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from cxr_serving.http import logs
from cxr_serving.http.app import create_app
from cxr_serving.http.keys import KeysError
from cxr_serving.http.settings import Settings, problems
from cxr_serving.http.tracing import TracingError
from cxr_serving.model.remote_errors import RemoteError


class Server(uvicorn.Server):
    """Shuts down in order: not ready, then closed to new requests, then finished, with status 0.

    A second signal, or Ctrl-C, skips the first step.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
            )
        )
        self._app = app
        self._notice_seconds = settings.notice_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals; unlike uvicorn, do not raise them again at the end."""
        handlers = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown, or shorten it."""
        if sig == signal.SIGTERM and not self._app.state.draining:
            self._app.state.draining = True
            signal.signal(signal.SIGALRM, super().handle_exit)
            signal.setitimer(signal.ITIMER_REAL, max(self._notice_seconds, 1e-3))
        else:
            self._app.state.draining = True
            super().handle_exit(sig, frame)


def serve() -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests in flight."""
    try:
        settings = Settings()
    except ValidationError as error:
        sys.exit(problems(error))
    logs.install()
    try:
        app = create_app(settings)
    except (KeysError, TracingError, RemoteError) as error:
        sys.exit(str(error))
    Server(app, settings).run()
