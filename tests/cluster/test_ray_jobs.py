"""A head node that is frozen: it takes requests, and answers none."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from net import answering, served

pytest.importorskip("dagster_ray", reason="Ray is not installed: make .venv/ray")

from cxr_assets.cluster.call import ClusterError
from cxr_assets.defs import cluster, ray_jobs
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout


@pytest.fixture
def freezing() -> Iterator[str]:
    """The address of a head node that freezes once it has taken a job."""
    ended = threading.Event()

    class Head(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/api/version":
                self._answer(b'{"version": "4", "ray_version": "%s"}' % version("ray").encode())
            else:
                ended.wait()

        def do_POST(self) -> None:
            self._answer(b'{"job_id": "1", "submission_id": "1"}')

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Head)) as port:
        yield f"http://127.0.0.1:{port}"
        ended.set()


@pytest.mark.timeout(60)
def test_a_frozen_head_node_fails_the_step_and_its_job_is_given_up(
    freezing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_jobs, "_ANSWERS", 1)
    monkeypatch.setattr(ray_jobs, "_LINES", 1)
    layout, mlflow = Layout(tmp_path), SimpleNamespace(uri=None, id=None)
    experiment = compose("demo", ["compute=ray", f"compute.address={freezing}"])

    @dg.asset
    def prepared(context: dg.AssetExecutionContext) -> None:
        cluster.run(context, experiment, layout, mlflow, "prepare")  # type: ignore[arg-type]

    with (
        dg.DagsterInstance.ephemeral() as instance,
        pytest.raises(cluster.JobError, match=r"is lost: .*Read timed out"),
    ):
        dg.materialize([prepared], instance=instance)
    assert not list(layout.jobs.iterdir())


@pytest.fixture
def secured() -> Iterator[str]:
    """The address of a cluster that wants a token."""
    with answering(401, b"Unauthorized: Missing authentication token") as address:
        yield address


def test_a_cluster_that_wants_a_token_says_so_and_how_to_set_it(
    secured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    experiment = compose("demo", ["compute=ray", f"compute.address={secured}"])
    with pytest.raises(ClusterError, match=r"(?s)takes no jobs of this machine: .*RAY_AUTH_TOKEN"):
        cluster.run(dg.build_op_context(), experiment, Layout(tmp_path), None, "prepare")  # type: ignore[arg-type]
    assert not Layout(tmp_path).jobs.exists()
