"""The service from its start through model swaps to its end."""

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import expected
import numpy as np
import pytest
from fastapi.testclient import TestClient
from onnxruntime import InferenceSession
from PIL import Image

from cxr_serving.http.app import create_app
from cxr_serving.http.settings import Settings
from cxr_serving.model.predictor import Predictor

PublishBundle = Callable[..., Path]


def test_shutdown_is_announced_first_and_loses_no_request(
    serve: Callable[..., Any],
    publish_bundle: PublishBundle,
    tmp_path: Path,
    encode_image: Callable[..., bytes],
) -> None:
    server = serve(tmp_path, notice_seconds=2)
    server.wait_for_version(publish_bundle(server.data_root, seed=1).name)
    slow = encode_image(Image.linear_gradient("L").resize((5600, 5700)), "PNG")
    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(server.predict, slow) for _ in range(4)]
        server.wait(
            lambda: (
                "cxr_requests_in_progress 5.0" in server.client.get("/metrics").text
                or any(answer.done() for answer in asked)
            ),
            30,
        )
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: server.client.get("/ready").status_code == 503, 10)
        assert server.client.get("/ready").json()["error"]["code"] == "draining"
        assert server.predict(slow).status_code == 200
        assert [answer.result().status_code for answer in asked] == [200] * 4
    assert server.process.wait(30) == 0


def test_no_model_then_swaps_then_a_bad_bundle_then_shutdown(
    serve: Callable[..., Any], publish_bundle: PublishBundle, tmp_path: Path, image: bytes
) -> None:
    server = serve(tmp_path)

    for answer in (
        server.client.get("/ready"),
        server.client.get("/model"),
        server.predict(image),
    ):
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "not_ready"
        assert int(answer.headers["Retry-After"]) >= 1
    assert server.client.get("/health").json()["status"] == "alive"
    server.wait(lambda: "run the job retrain" in server.client.get("/ready").text, 60)

    directories = [publish_bundle(server.data_root, seed=1)]
    server.wait_for_version(directories[0].name)
    swapping = True

    def ask() -> list[tuple[int, dict[str, Any]]]:
        answers = []
        while swapping:
            answer = server.predict(image)
            answers.append((answer.status_code, answer.json()))
        return answers

    with ThreadPoolExecutor(3) as clients:
        asking = [clients.submit(ask) for _ in range(3)]
        try:
            for seed in (2, 3, 4):
                directories.append(publish_bundle(server.data_root, seed))
                server.wait_for_version(directories[-1].name)
                after = server.predict(image)
                assert after.json()["model"]["version"] == directories[-1].name
        finally:
            swapping = False
        answers = [answer for client in asking for answer in client.result()]

    answers_of = {
        directory.name: expected.probabilities(directory, image) for directory in directories
    }
    assert {status for status, _ in answers} == {200}
    assert {body["model"]["version"] for _, body in answers} <= answers_of.keys()
    for _, body in answers:
        assert body["probs"] == pytest.approx(answers_of[body["model"]["version"]], abs=1e-6)

    bad = publish_bundle(
        server.data_root, 5, finish=lambda d: (d / "preprocessor_config.json").write_text("{}")
    )
    server.wait(lambda: server.client.get("/ready").json()["warning"] is not None, 60)
    ready = server.client.get("/ready")
    assert ready.status_code == 200
    assert bad.name in ready.json()["warning"]
    assert ready.json()["model"]["version"] == directories[-1].name
    assert server.predict(image).json()["model"]["version"] == directories[-1].name
    assert '"message": "rejected"' in server.log()

    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert "Application shutdown complete" in server.log()


def test_images_computed_at_the_same_time_keep_their_model_through_a_swap(
    tmp_path: Path,
    publish_bundle: PublishBundle,
    monkeypatch: pytest.MonkeyPatch,
    image: bytes,
    encode_image: Callable[..., bytes],
) -> None:
    images = [image, encode_image(Image.linear_gradient("L"), "PNG")]
    old = publish_bundle(tmp_path, seed=1)
    computed = Predictor(old)
    decoded = np.stack([computed.preprocessing.decode(image).pixels for image in images])
    before = computed.predict(decoded)
    computing, swapped = threading.Barrier(3, timeout=60), threading.Event()
    serving, loaded = set[InferenceSession](), threading.Event()

    def hold(name: str) -> None:
        compute = getattr(InferenceSession, name)

        def held(session: InferenceSession, *given: object) -> object:
            if not loaded.is_set():
                serving.add(session)
            elif session in serving:
                computing.wait()
                assert swapped.wait(60)
            return compute(session, *given)

        monkeypatch.setattr(InferenceSession, name, held)

    def serves(version: str) -> None:
        deadline = time.monotonic() + 60
        while version not in (said := client.get("/ready").text):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    for name in ("run", "run_async"):
        hold(name)
    settings = Settings(data_root=tmp_path, poll_seconds=0.1, threads=2, max_delay_seconds=1)
    with TestClient(create_app(settings)) as client, ThreadPoolExecutor(1) as clients:
        serves(old.name)
        loaded.set()
        files = [("file", sent) for sent in images]
        asked = clients.submit(client.post, "/predict/batch", files=files)
        computing.wait()  # both images are
        new = publish_bundle(tmp_path, seed=2)
        serves(new.name)
        swapped.set()
        answer = asked.result(60).json()
    assert answer["model"]["version"] == old.name
    found = [one["prediction"]["probs"] for one in answer["results"]]
    np.testing.assert_allclose(found, before, atol=1e-7)
