"""A small stand-in of the Hugging Face Hub's HTTP interface for model repositories.

It speaks what huggingface_hub's client says when it creates a repository, looks at it, asks how to
upload, sends large files, by Xet or by LFS (the basic transfer), commits and tags.
"""

import base64
import hashlib
import json
import math
import re
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self
from urllib.parse import urlsplit

from huggingface_hub import close_session
from xet import Storage

LARGE = (".safetensors", ".png", ".ckpt", ".onnx")
XET_TOKEN = "xet_" + "sh0rt" * 6


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b""})
    commits: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return f"{len(self.commits):040x}"


@dataclass
class Fault:
    """What befalls requests.

    Attributes:
        path: regular expression that their paths start with.
        status: of the answer they get; None to break the connection off within their body.
        message: in that answer.
        times: how many requests it befalls.
        done: whether what they ask for is done all the same.
    """

    path: str
    status: int | None
    message: str = "no"
    times: float = math.inf
    done: bool = False


class Hub:
    """Serves on loopback while used as a context manager.

    Attributes:
        repositories: by name, what has been stored.
        objects: large files by sha256.
        uploads: the name of every LFS object and every xorb that arrived whole, in order.
        faults: what goes wrong.
        requests: method and path of every request.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self._lock = Lock()
        self._xet = Storage(self.objects, self.uploads)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        # The client keeps its connections for some seconds, in which another hub may get this port.
        close_session()

    def fault(self, path: str) -> Fault | None:
        """The fault that befalls a request, counted."""
        with self._lock:
            for fault in self.faults:
                if re.match(fault.path, path) and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        if match := re.fullmatch(r"/storage/lfs/(\w+)", path):  # an address that is its own key
            return self._take(match[1], body)
        if path.startswith("/storage/xet/") and token == XET_TOKEN:
            return self._xet.answer(path.removeprefix("/storage/xet"), body)
        if token != self.token:
            return 401, {"error": f"bad token: {token}"}
        if method == "POST" and path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            existed = name in self.repositories
            self.repositories.setdefault(name, Repository(wanted["visibility"] == "private"))
            return 409 if existed else 200, {"url": f"{self.url}/{name}", "name": name}
        if path == "/api/validate-yaml":  # the metadata of the card
            return 200, {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/(.+?/.+?)\.git/info/lfs/objects/batch", path):
            return 200, {"objects": [self._batch(item) for item in json.loads(body)["objects"]]}
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
            content = self.repositories[match[1]].files.get(match[3])
            return (404, {"error": "Entry not found"}) if content is None else (200, content)
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/([\w-]+)/(\w+))?", path)
        repository = self.repositories.get(match[1]) if match else None
        if match is None or repository is None:
            return 404, {"error": "Repository not found"}
        action = getattr(self, f"_{match[2] or 'revision'}".replace("-", "_"))
        return action(match[1], repository, match[3], body)

    def _take(self, oid: str, body: bytes) -> tuple[int, Any]:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "not the content that was announced"}
        self.objects[oid] = body
        self.uploads.append(oid)
        return 200, {}

    def _batch(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["oid"] in self.objects:
            return item
        return {**item, "actions": {"upload": {"href": f"{self.url}/storage/lfs/{item['oid']}"}}}

    def _xet_write_token(self, name: str, repository: Repository, rev: str, body: bytes) -> Any:
        url = f"{self.url}/storage/xet"
        return 200, {"accessToken": XET_TOKEN, "exp": int(time.time()) + 3600, "casUrl": url}

    def _revision(self, name: str, repository: Repository, rev: str, body: bytes) -> Any:
        files = [
            {"rfilename": path, "size": len(content), "blobId": _git_oid(content)}
            | ({"lfs": _pointer(content)} if path.endswith(LARGE) else {})
            for path, content in repository.files.items()
        ]
        return 200, {"id": name, "sha": repository.head, "siblings": files}

    def _preupload(self, name: str, repository: Repository, rev: str, body: bytes) -> Any:
        files = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            large = path.endswith(LARGE)
            mode = {"uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if (stored := repository.files.get(path)) is not None:
                mode["oid"] = _pointer(stored)["sha256"] if large else _git_oid(stored)
            files.append({"path": path, **mode})
        return 200, {"files": files}

    def _commit(self, name: str, repository: Repository, rev: str, body: bytes) -> Any:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                if value.get("parentCommit", repository.head) != repository.head:
                    return 412, {"error": "A commit has happened since. Please refresh."}
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del repository.files[value["path"]]
        return 200, {
            "success": True,
            "commitOid": repository.head,
            "commitUrl": f"{self.url}/{name}/commit/{repository.head}",
            "hookOutput": "",
        }

    def _tag(self, name: str, repository: Repository, rev: str, body: bytes) -> Any:
        tag = json.loads(body)["tag"]
        if tag in repository.tags:
            return 409, {"error": "Tag reference exists already"}
        repository.tags[tag] = rev
        return 200, {}


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _pointer(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        hub: Hub = self.server.hub
        path = urlsplit(self.path).path
        hub.requests.append((self.command, path))
        fault = hub.fault(path)
        if fault and fault.status is None:
            self.rfile.read1(100)
            self.close_connection = True
            return
        body = self._body()
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if fault is None or fault.done:
            status, content = hub.answer(self.command, path, token, body)
        if fault:
            status, content = fault.status, {"error": fault.message}
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
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
