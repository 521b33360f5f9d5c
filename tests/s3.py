"""A server of S3 over HTTP, and a network between it and its clients that can fail.

The server is moto's, in this process, or the one that ``S3_ENDPOINT`` names.
"""

import io
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

BUCKET = "hospital"
URL = f"s3://{BUCKET}/cxr"
# An interim answer; botocore 1.44.8 would read on for ever where a connection ends within it.
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# moto takes any account.
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID", "user"),
    "AWS_SECRET_ACCESS_KEY": os.environ.get("AWS_SECRET_ACCESS_KEY", "secret"),
    "AWS_REGION": "us-east-1",
}


class Moto:
    """moto checks a condition, then writes: two requests at once might both be the first.

    Attributes:
        lacks: a condition that it does not know, such as ``IF_MATCH``.
        answer: to requests with that condition; without one, they are as those without it.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self.lacks = ""
        self.answer: str | None = None
        self._answer = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if len(body) < length:
            start("400 Bad Request", [])
            return []
        if environ.pop(f"HTTP_{self.lacks}", None) and self.answer:
            start(self.answer, [])
            return []
        if '"' in environ.get("HTTP_IF_MATCH", ""):  # Ceph 16 compares without quotes
            start("412 Precondition Failed", [])
            return []
        environ["wsgi.input"] = io.BytesIO(body)
        with self._lock:
            return list(self._answer(environ, start))


class Network:
    """Passes bytes between clients and a server, until it is cut; may be slow."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._left: dict[str, float] = {}
        self._bytes_per_second = float("inf")
        self._open: set[socket.socket] = set()
        self.passed = {"up": 0, "down": 0}
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What has a client use this network."""
        port = self._listener.getsockname()[1]
        return {**ACCOUNT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}

    def cut(self, up: float = float("inf"), down: float = float("inf")) -> None:
        """Cut it after so many more bytes to the server (up) or from it (down)."""
        self._left = {"up": up, "down": down}

    def mend(self) -> None:
        """Make it whole and fast."""
        self._left, self._bytes_per_second = {}, float("inf")

    def slow(self, bytes_per_second: float) -> None:
        """Let so many bytes pass in a second from now on."""
        self._bytes_per_second = bytes_per_second

    @property
    def is_cut(self) -> bool:
        return any(left <= 0 for left in self._left.values())

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes up who accepts
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_cut:
                    client.close()
                    continue
                server = socket.create_connection(self._server)
                for way, one, other in (("up", client, server), ("down", server, client)):
                    threading.Thread(target=self._pass, args=(way, one, other), daemon=True).start()

    def _pass(self, way: str, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(2**16 if self._bytes_per_second > 2**20 else 2**10):
                if self._bytes_per_second < float("inf"):
                    time.sleep(len(chunk) / self._bytes_per_second)
                if way in self._left:
                    chunk = chunk[: max(0, int(min(len(chunk), self._left[way])))]
                    if chunk != _CONTINUE and _CONTINUE.startswith(chunk):
                        chunk, self._left[way] = b"", 0
                    self._left[way] -= len(chunk)
                self.passed[way] += len(chunk)
                target.sendall(chunk)
                if self.is_cut:
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Storage:
    """The bucket as its administrator sees it, past the network.

    Attributes:
        network: between it and clients.
        moto: the server, unless it runs elsewhere.
    """

    def __init__(self, endpoint: str, moto: Moto | None = None) -> None:
        import boto3
        from botocore.config import Config

        self.moto = moto
        server = urlsplit(endpoint)
        self._server = (server.hostname or "", server.port or 80)
        self.network = Network(self._server)
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=ACCOUNT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ACCOUNT["AWS_SECRET_ACCESS_KEY"],
            region_name=ACCOUNT["AWS_REGION"],
            config=Config(s3={"addressing_style": "path"}),
        )

    def mend(self) -> None:
        """Empty the bucket, and end all faults."""
        self.network.mend()
        if self.moto is not None:
            self.moto.lacks = ""
        self.empty()

    @contextmanager
    def other_network(self) -> Iterator[None]:
        """Clients that are made meanwhile have a network of their own, which is whole and fast."""
        network = Network(self._server)
        with patch.dict(os.environ, network.environment):
            yield
        network.close()

    def keys(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET)
        return {one["Key"] for one in found.get("Contents", ())}

    def has(self, key: str) -> bool:
        return key in self.keys()

    def content(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def written(self, key: str) -> datetime:
        """When an object was written, by the server's clock, to the second."""
        time: datetime = self.client.head_object(Bucket=BUCKET, Key=key)["LastModified"]
        return time

    def replace(self, key: str, content: bytes) -> None:
        """Write other content and keep what the writer recorded of the old one, as a fault does."""
        kept = self.client.head_object(Bucket=BUCKET, Key=key)["Metadata"]
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content, Metadata=kept)

    def damage(self, key: str) -> None:
        """Flip a bit in the middle."""
        content = bytearray(self.content(key))
        content[len(content) // 2] ^= 1
        self.replace(key, bytes(content))

    def empty(self) -> None:
        for key in self.keys():
            self.client.delete_object(Bucket=BUCKET, Key=key)


@contextmanager
def running() -> Iterator[Storage]:
    """A server with an empty bucket, for as long as it is needed."""
    endpoint = os.environ.get("S3_ENDPOINT")
    with nullcontext(Storage(endpoint)) if endpoint else _moto() as storage:
        if BUCKET in {one["Name"] for one in storage.client.list_buckets()["Buckets"]}:
            raise RuntimeError(f"{endpoint} has a bucket {BUCKET}: delete it for these tests")
        storage.client.create_bucket(Bucket=BUCKET)
        try:
            yield storage
        finally:
            storage.network.close()
            storage.empty()
            storage.client.delete_bucket(Bucket=BUCKET)


@contextmanager
def _moto() -> Iterator[Storage]:
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = Moto()
    server = make_server("127.0.0.1", 0, moto, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Storage(f"http://127.0.0.1:{server.server_port}", moto)
    finally:
        server.shutdown()
