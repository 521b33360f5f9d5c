"""Three replicas behind nginx."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.serving.nginx import CONFIGURATION, NGINX, nginx, placed
from cxr_serving.model.bundle import GATE_FILE

PublishBundle = Callable[..., Path]

CLIENTS = 4

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx)")


@dataclass
class Sent:
    """One image: swaps done when it was sent, those begun when it was answered, the answer."""

    done: int
    begun: int
    status: int
    version: str


class Load:
    """Images sent through nginx, as fast as they are answered, until the end of the block."""

    def __init__(self, url: str, image: bytes) -> None:
        self.sent: list[Sent] = []
        self.done = self.begun = 0
        self._url = url
        self._image = image
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(CLIENTS)]

    def _send(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while not self._over.is_set():
                done = self.done
                try:
                    answer = client.post("/predict", files={"file": self._image})
                except httpx.TransportError as error:
                    self.sent.append(Sent(done, self.begun, 0, repr(error)))
                    return
                version = answer.json()["model"]["version"] if answer.is_success else answer.text
                self.sent.append(Sent(done, self.begun, answer.status_code, version))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def served(replica: Any) -> list[str]:
    """The versions that a replica has served, in order, as it says in its log."""
    lines = [json.loads(line) for line in replica.log().splitlines()]
    return [line["version"] for line in lines if line["message"] == "serving"]


def named(replica: Any, metric: str) -> list[str]:
    """The versions of a metric of a replica."""
    return [v for (name, labels), _ in replica.samples().items() if name == metric for v in labels]


def test_no_image_fails_while_models_change_and_a_replica_is_killed(
    tmp_path: Path, serve: Callable[..., Any], publish_bundle: PublishBundle, image: bytes
) -> None:
    root = tmp_path / "data"
    versions = [publish_bundle(root, seed=1).name]
    replicas = []
    for number in range(3):
        folder = tmp_path / f"replica-{number}"
        folder.mkdir()
        # The last one is set up differently: it serves no model without a gate.
        gate = "reject" if number == 2 else "flag"
        replicas.append(serve(folder, data_root=root, gate=gate))
    for replica in replicas:
        replica.wait_for_version(versions[0])
    first, killed, last = replicas
    with nginx(tmp_path, [replica.port for replica in replicas]) as port:
        url = f"http://127.0.0.1:{port}"
        with Load(url, image) as load:
            first.wait(lambda: bool(load.sent), 120)
            for swap in (1, 2):
                load.begun = swap
                versions.append(publish_bundle(root, seed=1 + swap).name)
                for replica in replicas:
                    replica.wait_for_version(versions[-1])
                load.done = swap
            answered = len(load.sent)
            first.wait(lambda: len(load.sent) > answered + 20, 120)
            killed.process.kill()
            answered = len(load.sent)
            first.wait(lambda: len(load.sent) > answered + 20, 120)

        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            for path in ("/metrics", "/model/pin", "/model/unpin"):
                assert client.post(path).status_code == 404, path
            assert client.get("/model").json()["model"]["version"] == versions[-1]
            large = client.post("/predict", files={"file": bytes(2**21)})
            assert "error" in large.json(), "nginx's default rejects more than 1 MB"

    # The kill may cut off an answer that nginx has begun to pass on, and cannot ask for again.
    cut = [sent for sent in load.sent if "without sending complete" in sent.version]
    assert len(cut) <= CLIENTS
    answers = [sent for sent in load.sent if sent not in cut]
    assert [sent for sent in answers if sent.status != 200] == []
    for sent in answers:
        assert sent.version in versions[sent.done : sent.begun + 1], "at most two versions at once"
    assert {sent.version for sent in answers} >= {versions[0], versions[-1]}
    for replica in replicas:
        assert served(replica) == versions, "never back"

    ungated = publish_bundle(root, 4, finish=lambda made: (made / GATE_FILE).unlink(), gate=None)
    first.wait_for_version(ungated.name)
    last.wait(lambda: named(last, "cxr_model_rejected") == [ungated.name], 60)
    assert named(first, "cxr_model_rejected") == []
    assert versions[-1] in named(last, "cxr_model_info")
    assert ungated.name in named(first, "cxr_model_info")


def test_the_configuration_is_that_of_any_number_of_replicas() -> None:
    there = placed(CONFIGURATION.read_text(), 8080, [9001, 9002])
    assert there.count("server 127.0.0.1:") == 2
    assert "server 127.0.0.1:9002 fail_timeout" in there
    assert "listen 127.0.0.1:8080;" in there
