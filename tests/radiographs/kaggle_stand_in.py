"""A stand-in for Kaggle's HTTP interface: the API on 127.0.0.1, the store on localhost."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kagglehub import clients
from kagglesdk import kaggle_env
from net import served

SERVICE = "/v1/datasets.DatasetApiService"


class KaggleStandIn:
    """Serves one archive as version 2 of any data set, and records the requests.

    Attributes:
        archive: the bytes in the store.
        status: HTTP status of the API, 200 or an error.
        md5: what the store declares, base64; None to declare nothing.
        cuts: body bytes after which each coming answer of the store is cut; whole once it is empty.
        ranges: the Range header of each answered request to the store, None for a whole body.
        api_tokens, store_tokens: the Authorization headers that arrived.
    """

    def __init__(self, archive: bytes, url: str, store: str) -> None:
        self.archive = archive
        self.url = url
        self.store = store
        self.status = 200
        self.md5: str | None = base64.b64encode(hashlib.md5(archive).digest()).decode()
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.api_tokens: list[str | None] = []
        self.store_tokens: list[str | None] = []


def _handler(holder: list[KaggleStandIn]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kaggle = holder[0]
            self.rfile.read(int(self.headers["Content-Length"]))
            kaggle.api_tokens.append(self.headers["Authorization"])
            if kaggle.status != 200:
                self.answer(kaggle.status, {"code": kaggle.status, "message": "rejected"})
            elif self.path == f"{SERVICE}/GetDataset":
                self.answer(200, {"currentVersionNumber": 2})
            elif self.path == f"{SERVICE}/DownloadDataset":
                self.send_response(302)
                self.send_header("Location", f"{kaggle.store}/archive.zip")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.answer(404, {"code": 404, "message": f"no {self.path}"})

        def answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            kaggle = holder[0]
            wanted = self.headers["Range"]
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            body = kaggle.archive[start:]
            kaggle.ranges.append(wanted)
            kaggle.store_tokens.append(self.headers["Authorization"])
            self.send_response(206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(body)))
            if kaggle.md5 is not None:
                self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={kaggle.md5}")
            self.end_headers()
            # To resume, the client opens the whole download, leaves it, and asks for the range.
            with suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(body[: kaggle.cuts.pop(0)] if kaggle.cuts else body)
            self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler


@contextmanager
def serve(archive: bytes) -> Iterator[KaggleStandIn]:
    """Run a stand-in until the block ends."""
    holder: list[KaggleStandIn] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(holder))
    server.daemon_threads = True
    with served(server) as port:
        stand_in = KaggleStandIn(archive, f"http://127.0.0.1:{port}", f"http://localhost:{port}")
        holder.append(stand_in)
        yield stand_in


def point_client_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make kagglehub talk to ``url`` instead of https://api.kaggle.com, without credentials."""
    # Otherwise it looks for Keras in every frame of the call stack, which takes seconds in a test.
    monkeypatch.setattr(clients, "get_user_agent", lambda: "kagglehub")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, url)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", "/nonexistent")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
