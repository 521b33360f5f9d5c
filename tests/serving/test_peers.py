"""The benchmark against other services, without running them."""

import os
import time
from pathlib import Path

import pytest

from benchmarks.serving.peers import FP32, INT8, verdicts
from benchmarks.serving.server import free_port, serve
from benchmarks.serving.speed import Figures

ROOT = Path(__file__).parents[2]
# A service, and a worker of it in a session of its own that outlives its parent.
SERVICE = """
import subprocess, sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
worker = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(worker.pid, flush=True)
HTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""


def test_every_process_of_a_service_counts_and_ends_with_it(tmp_path: Path) -> None:
    port = free_port()
    with serve(("-c", SERVICE, str(port)), tmp_path, port, ready="/", directory=tmp_path) as server:
        worker = int(server.log.read_text().split()[0])
        rollup = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
        alone = int(rollup.partition("\nPss:")[2].split()[0]) * 1024
        assert server.resident > alone > 0
    deadline = time.monotonic() + 30
    while _runs(worker):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def figures(throughput: float, p99: float, latency: float) -> Figures:
    return Figures(1.5, latency, throughput, p99, p99, 1, 200, 0)


def test_ours_is_compared_with_the_best_peer_in_each_figure() -> None:
    found = verdicts(
        {
            "fast": figures(throughput=10, p99=2000, latency=150),
            "prompt": figures(throughput=8, p99=1000, latency=100),
            FP32: figures(throughput=14, p99=601, latency=70),
            INT8: figures(throughput=24, p99=500, latency=50),
        }
    )
    assert [(verdict.name, verdict.value, verdict.met) for verdict in found] == [
        (f"{FP32}: images/s of 16 clients", 1.4, True),
        (f"{FP32}: p99 of 16 clients", 0.601, False),
        (f"{FP32}: 1 client", 0.7, True),
        (f"{FP32}: start to ready, s", 1.5, True),
        (f"{INT8}: images/s of 16 clients", 2.4, False),
        (f"{INT8}: p99 of 16 clients", 0.5, True),
        (f"{INT8}: 1 client", 0.5, True),
        (f"{INT8}: start to ready, s", 1.5, True),
        (f"{FP32}: resident, MB", pytest.approx(209.7, abs=0.1), True),
    ]


def test_peers_compute_with_the_same_versions() -> None:
    ours, theirs = (
        dict(line.split("==") for line in (ROOT / file).read_text().splitlines())
        for file in ("constraints.txt", "benchmarks/serving/peers.txt")
    )
    for name in ("numpy", "onnxruntime", "pillow", "torch", "transformers", "uvicorn"):
        assert theirs[name] == ours[name]
