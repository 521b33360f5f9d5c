"""Stand-ins for what takes messages: a webhook over HTTP, and a mail server over SMTP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

from net import served

# Part of the stand-in's address, as a token is part of Slack's.
SECRET = "s3cret-token"


@contextmanager
def webhook(failures: int = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address of apprise's JSON webhook, and what it takes after so many failures."""
    taken: list[dict[str, Any]] = []
    left = [failures]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            left[0] -= 1
            if left[0] >= 0:
                self.send_error(503)
                return
            taken.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"json://127.0.0.1:{port}/{SECRET}", taken


@contextmanager
def mail_server() -> Iterator[tuple[str, list[EmailMessage]]]:
    """An address of apprise's mail, and what it takes."""
    taken: list[EmailMessage] = []

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 stand-in\r\n")
            while line := self.rfile.readline():
                command = line.split()[0].upper()
                if command == b"DATA":
                    self.wfile.write(b"354 go\r\n")
                    lines = iter(self.rfile.readline, b".\r\n")
                    taken.append(message_from_bytes(b"".join(lines), policy=policy.default))
                self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")
                if command == b"QUIT":
                    return

    with served(ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"mailto://127.0.0.1:{port}/?from=cxr@example.org&to=doctor@example.org", taken
