"""A stand-in of Kubernetes: it checks each job by schema, and runs its container as a process."""

import json
import re
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import kubernetes_validate
import yaml
from net import served

VERSION = "1.33"  # the oldest that is supported
NAMESPACE = "cxr"


class Kubernetes:
    """Takes jobs of dagster-k8s' own client.

    Args:
        environment: of each container, besides its own.

    Attributes:
        jobs: what was sent, by name.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self._environment = environment
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Kubernetes":
        stand_in = self

        class Api(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                self._answer(stand_in._create(json.loads(self.rfile.read(length))))

            def do_GET(self) -> None:
                self._answer(stand_in._read(self.path))

            def do_DELETE(self) -> None:
                self._answer(stand_in._delete(self.path))

            def _answer(self, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._serving = served(ThreadingHTTPServer(("127.0.0.1", 0), Api))
        self._port = self._serving.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._serving.__exit__(kind, error, trace)

    @property
    def kubeconfig(self) -> str:
        """The file by which a client finds this one."""
        named = {"name": NAMESPACE}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{**named, "cluster": {"server": f"http://127.0.0.1:{self._port}"}}],
                "contexts": [{**named, "context": {"cluster": NAMESPACE, "namespace": NAMESPACE}}],
                "current-context": NAMESPACE,
            }
        )

    def _create(self, job: dict[str, Any]) -> dict[str, Any]:
        name = job["metadata"]["name"]
        self.jobs[name] = job
        kubernetes_validate.validate(job, VERSION, strict=True)
        [container] = job["spec"]["template"]["spec"]["containers"]
        given = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        self._processes[name] = subprocess.Popen(
            container["args"], env={**self._environment, **given, "HOSTNAME": name}
        )
        return job

    def _read(self, path: str) -> dict[str, Any]:
        if job := re.search(r"/jobs/([^/]+)/status$", path):
            code = self._processes[job[1]].poll()
            state = "active" if code is None else "failed" if code else "succeeded"
            return {"metadata": {"name": job[1]}, "status": {state: 1}}
        if pod := re.search(r"/pods/([^/]+)$", path):
            return {"metadata": {"name": pod[1], "uid": f"uid-of-{pod[1]}"}}
        return {"items": []}

    def _delete(self, path: str) -> dict[str, Any]:
        self._processes[path.rpartition("/")[2]].terminate()
        return {"status": "Success"}
