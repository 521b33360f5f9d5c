"""What a Prometheus that scrapes every replica says of them; it runs as deployed, but faster."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.serving.server import free_port
from cxr_serving.model.bundle import GATE_FILE

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = shutil.which("prometheus")

pytestmark = pytest.mark.skipif(
    PROMETHEUS is None, reason="Prometheus is not installed (Debian: prometheus)"
)


@contextmanager
def prometheus(folder: Path, ports: list[int]) -> Iterator[httpx.Client]:
    """A client of one that scrapes these ports once a second."""
    settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(DEPLOY / "alerts.yml")]
    targets = [f"127.0.0.1:{port}" for port in ports]
    settings["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    configuration = folder / "prometheus.yml"
    configuration.write_text(yaml.safe_dump(settings))
    address = f"127.0.0.1:{free_port()}"
    program = [
        *(str(PROMETHEUS), f"--config.file={configuration}", f"--web.listen-address={address}"),
        f"--storage.tsdb.path={folder / 'samples'}",
    ]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(program, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://{address}", trust_env=False) as client,
    ):
        try:
            yield client
        finally:
            process.terminate()


def alerts(client: httpx.Client) -> dict[str, dict[str, Any]]:
    """The alerts that are pending or fire, by name; none before it answers."""
    try:
        answer = client.get("/api/v1/alerts").raise_for_status().json()
    except httpx.HTTPError:
        return {}
    return {alert["labels"]["alertname"]: alert for alert in answer["data"]["alerts"]}


def test_a_model_that_one_replica_rejects_is_seen_beside_the_others(
    tmp_path: Path, serve: Callable[..., Any], publish_bundle: Callable[..., Path]
) -> None:
    root = tmp_path / "data"
    replicas = []
    for gate in ("flag", "reject"):  # the last serves no model without a gate
        (tmp_path / gate).mkdir()
        replicas.append(serve(tmp_path / gate, data_root=root, gate=gate))
    first, last = replicas
    good = publish_bundle(root, seed=1).name
    for replica in replicas:
        replica.wait_for_version(good)
    with prometheus(tmp_path, [replica.port for replica in replicas]) as client:

        def answers() -> bool:
            query = {"query": f'cxr_model_info{{version="{good}"}}'}
            try:
                answer = client.get("/api/v1/query", params=query).raise_for_status().json()
            except httpx.HTTPError:
                return False
            return len(answer["data"]["result"]) == len(replicas)

        first.wait(answers, 60)
        assert not alerts(client).keys() & {"ReplicaRejects", "ReplicasDiffer"}
        bad = publish_bundle(root, 2, finish=lambda made: (made / GATE_FILE).unlink(), gate=None)
        first.wait(lambda: {"ReplicaRejects", "ReplicasDiffer"} <= alerts(client).keys(), 60)
        rejects = alerts(client)["ReplicaRejects"]
        assert rejects["annotations"]["summary"].startswith(
            f"1 of the replicas rejected {bad.name}"
        )

        last.process.kill()
        last.process.wait()
        first.wait(lambda: "ReplicaRejects" not in alerts(client), 60)
