"""The service and a pipeline on two machines, with a bucket between them, under load."""

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import s3

from cxr_assets.exchange import exchanged
from cxr_assets.layout import Layout

# `make s3` takes more of them.
PUBLICATIONS = int(os.environ.get("PUBLICATIONS", "10"))
CLIENTS = 2


def test_publications_under_load(
    tmp_path: Path,
    storage: s3.Storage,
    serve: Callable[..., Any],
    publish_bundle: Callable[..., Path],
    image: bytes,
) -> None:
    pipeline = Layout(tmp_path / "pipeline", s3.URL)

    def publish(seed: int) -> str:
        with exchanged(pipeline, lambda line: None):
            return publish_bundle(pipeline.root, seed).name

    published = [publish(0)]
    service = tmp_path / "service"
    service.mkdir()
    server = serve(service, data_root=s3.URL, cache=service / "cache")
    server.wait_for_version(published[0])

    answers: list[list[httpx.Response]] = [[] for _ in range(CLIENTS)]
    stop = threading.Event()

    def ask(mine: list[httpx.Response]) -> None:
        with httpx.Client(base_url=server.client.base_url, timeout=60, trust_env=False) as client:
            while not stop.is_set():
                mine.append(client.post("/predict", files={"file": ("image.jpeg", image)}))

    clients = [threading.Thread(target=ask, args=(mine,)) for mine in answers]
    for client in clients:
        client.start()
    try:
        for seed in range(1, PUBLICATIONS):
            if seed % 10 == 4:  # the connection of the service ends in the middle of a version
                size = len(storage.content(f"cxr/models/convnext_model/{published[-1]}.tar"))
                published.append(publish(seed))
                storage.network.cut(down=size / 2)
                server.wait(lambda: "cannot be reached" in server.log(), 60)
                storage.network.mend()
            else:
                published.append(publish(seed))
            server.wait_for_version(published[-1])
    finally:
        stop.set()
        for client in clients:
            client.join()

    assert Counter(a.status_code for mine in answers for a in mine) == {200: sum(map(len, answers))}
    order = {version: number for number, version in enumerate(published)}
    for mine in answers:
        served = [order[answer.json()["model"]["version"]] for answer in mine]
        assert served == sorted(served)  # never back
    assert server.samples()["cxr_model_loads_total", ()] == PUBLICATIONS
    assert server.samples()["cxr_model_rejections_total", ()] == 0
    assert len(list((service / "cache").rglob("bundle.json"))) <= 4
    assert list((service / "cache").rglob("*.partial")) == []


def test_bucket_that_is_silent_keeps_no_service_from_ending(
    tmp_path: Path, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        for name, value in s3.ACCOUNT.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        server = serve(tmp_path, data_root=s3.URL, cache=tmp_path / "cache")
        with silent.accept()[0]:
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(25) == 0  # a request is given up after 30 s
    assert "Application shutdown complete" in server.log()
