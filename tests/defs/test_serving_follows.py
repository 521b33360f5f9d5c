"""The service next to the pipeline: not ready, then ready, then swapped under load."""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from command import CXR
from net import free_port
from PIL import Image

from cxr_serving.model import store
from cxr_serving.model.predictor import Predictor

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def service(new_workplace, tmp_path) -> Iterator[tuple]:
    """A workplace without any model, and ``make serve`` on it."""
    workplace = new_workplace()
    port = free_port()
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [CXR, "serve"],
        cwd=REPOSITORY,
        env={**workplace.environment, "CXR_PORT": str(port)},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield workplace, client
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


def eventually(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.1)


def test_the_service_follows_materialisations(service):
    workplace, client = service
    models = workplace.layout.models("convnext_model")
    eventually(lambda: client.get("/health").status_code == 200)
    assert client.get("/ready").status_code == 503

    # Only the assets that the service needs; other tests run the whole graph.
    data = "raw_kaggle,processed_dataset"
    assert workplace.materialize(f"{data},convnext_model").returncode == 0
    first = store.latest(models)
    eventually(lambda: client.get("/ready").status_code == 200)
    assert client.get("/model").json()["model"]["version"] == first.name

    pixels = np.random.default_rng(0).integers(0, 256, (120, 150), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    image = stream.getvalue()
    answers: list[httpx.Response] = []
    stop = threading.Event()

    def ask() -> None:
        # Paced: without a pause, two clients take a processor from the retraining.
        while not stop.wait(0.1):
            answers.append(client.post("/predict", files={"file": ("image.png", image)}))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert workplace.materialize("convnext_model", "seed=1").returncode == 0
        second = store.latest(models)
        eventually(lambda: client.get("/model").json()["model"]["version"] == second.name)
        served = len(answers)
        eventually(lambda: len(answers) > served + 4)
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)

    assert Counter(answer.status_code for answer in answers) == {200: len(answers)}
    versions = [answer.json()["model"]["version"] for answer in answers]
    assert set(versions) == {first.name, second.name}
    for directory in (first, second):
        predictor = Predictor(directory)
        expected = predictor.predict(predictor.preprocessing.decode(image).pixels[None])[0]
        for answer in answers:
            if answer.json()["model"]["version"] == directory.name:
                np.testing.assert_allclose(answer.json()["probs"], expected, atol=1e-5)
