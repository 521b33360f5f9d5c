"""A small stand-in of the Hugging Face Hub's HTTP interface for model repositories.

It speaks what huggingface_hub's client says when it creates a repository, lists it, asks how to
upload, sends large files by LFS (the basic transfer), commits and tags.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self
from urllib.parse import urlsplit

LARGE = (".safetensors", ".png", ".ckpt", ".onnx")


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b""})
    commits: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)


class Hub:
    """Serves on loopback while used as a context manager.

    Attributes:
        repositories: by name, what has been stored.
        objects: LFS objects by sha256.
        uploads: the sha256 of every LFS upload, in order.
        answers: status and message to give instead, by start of the path.
        requests: method and path of every request.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.answers: dict[str, tuple[int, str]] = {}
        self.requests: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if method == "POST" and path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            existed = name in self.repositories
            self.repositories.setdefault(name, Repository(wanted["visibility"] == "private"))
            return 409 if existed else 200, {"url": f"{self.url}/{name}", "name": name}
        if path == "/api/validate-yaml":  # the metadata of the card
            return 200, {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/lfs/(\w+)", path):
            self.objects[match[1]] = body
            self.uploads.append(match[1])
            return 200, {}
        if match := re.fullmatch(r"/(.+?/.+?)\.git/info/lfs/objects/batch", path):
            return 200, {"objects": [self._batch(item) for item in json.loads(body)["objects"]]}
        match = re.fullmatch(r"/api/models/(.+?/.+?)/(\w+)/(\w+)", path)
        repository = self.repositories.get(match[1]) if match else None
        if match is None or repository is None:
            return 404, {"error": "Repository not found"}
        action = getattr(self, f"_{match[2]}")
        return action(match[1], repository, match[3], body)

    def _batch(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["oid"] in self.objects:
            return item
        return {**item, "actions": {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}}

    def _tree(self, name: str, repository: Repository, revision: str, body: bytes) -> Any:
        return 200, [
            {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
            for path, content in repository.files.items()
        ]

    def _preupload(self, name: str, repository: Repository, revision: str, body: bytes) -> Any:
        files = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith(LARGE)
            stored = repository.files.get(file["path"])
            oid = hashlib.sha256(stored).hexdigest() if stored and large else stored
            files.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": _git_oid(oid) if isinstance(oid, bytes) else oid,
                }
            )
        return 200, {"files": files}

    def _commit(self, name: str, repository: Repository, revision: str, body: bytes) -> Any:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del repository.files[value["path"]]
        oid = f"{len(repository.commits):040x}"
        return 200, {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{self.url}/{name}/commit/{oid}",
            "hookOutput": "",
        }

    def _tag(self, name: str, repository: Repository, revision: str, body: bytes) -> Any:
        tag = json.loads(body)["tag"]
        if tag in repository.tags:
            return 409, {"error": "Tag reference exists already"}
        repository.tags[tag] = revision
        return 200, {}

    def _revision(self, name: str, repository: Repository, revision: str, body: bytes) -> Any:
        return 200, {"id": name, "sha": f"{len(repository.commits):040x}"}


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        hub: Hub = self.server.hub
        path = urlsplit(self.path).path
        body = self._body()
        hub.requests.append((self.command, path))
        status, content = 401, {"error": f"bad token: {self.headers.get('Authorization')}"}
        if forced := next((a for start, a in hub.answers.items() if path.startswith(start)), None):
            status, content = forced[0], {"error": forced[1]}
        elif path.startswith("/lfs/") or self.headers.get("Authorization") == f"Bearer {hub.token}":
            status, content = hub.answer(self.command, path, body)
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *args: object) -> None:
        pass
