"""The service as a user meets it: a process of its own, a data root, and HTTP."""

import json
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from cxr_serving.predictor import Predictor

PublishBundle = Callable[..., Path]
CLASSES = ["bacterial_pneumonia", "normal", "viral_pneumonia"]


def expected_probs(directory: Path, film: bytes) -> list[float]:
    predictor = Predictor(directory)
    probs: list[float] = predictor.predict(np.stack([predictor.preprocessing.decode(film)]))[
        0
    ].tolist()
    return probs


def test_answer_is_the_predictors(ready_server: Any, film: bytes) -> None:
    answer = ready_server.predict(film, headers={"X-Request-ID": "film-1"})
    assert answer.status_code == 200
    body = answer.json()
    [directory] = (ready_server.data_root / "models" / "convnext_model").glob("2*")
    assert body["probs"] == pytest.approx(expected_probs(directory, film), abs=1e-6)
    assert body["pred"] == int(np.argmax(body["probs"]))
    assert body["label"] == CLASSES[body["pred"]]
    assert body["probabilities"] == dict(zip(CLASSES, body["probs"], strict=True))
    assert body["model"] == {
        "asset": "convnext_model",
        "version": directory.name,
        "fingerprint": f"{1:08x}".ljust(64, "0"),
        "synthetic": True,
    }
    assert body["request_id"] == answer.headers["X-Request-ID"] == "film-1"
    assert "Not a medical device" in body["disclaimer"]


def test_model_tells_where_it_comes_from(ready_server: Any) -> None:
    body = ready_server.client.get("/model").json()
    [directory] = (ready_server.data_root / "models" / "convnext_model").glob("2*")
    assert body["model"] == json.loads((directory / "bundle.json").read_text())
    assert "Not a medical device" in body["disclaimer"]


def test_openapi_describes_the_upload_and_the_errors(ready_server: Any) -> None:
    schema = ready_server.client.get("/openapi.json").json()
    assert "Not a medical device" in schema["info"]["description"]
    predict = schema["paths"]["/predict"]["post"]
    form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["file"]["format"] == "binary"
    assert predict["responses"].keys() == {"200", "400", "413", "415", "422", "503"}
    assert ready_server.client.get("/docs").status_code == 200


def test_metrics_count_what_happened(ready_server: Any, film: bytes) -> None:
    def samples() -> dict[tuple[str, tuple[str, ...]], float]:
        text = ready_server.client.get("/metrics").text
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    before = samples()
    label = ready_server.predict(film).json()["label"]
    ready_server.predict(b"no film")
    after = samples()
    for name, labels in (
        ("cxr_requests_total", ("/predict", "200")),
        ("cxr_requests_total", ("/predict", "415")),
        ("cxr_predictions_total", (label,)),
    ):
        assert after[name, labels] - before.get((name, labels), 0) == 1
    assert after["cxr_model_ready", ()] == 1
    assert after["cxr_model_loads_total", ()] == 1
    assert ("process_resident_memory_bytes", ()) in after


def test_other_requests_are_answered_while_a_film_is_classified(
    ready_server: Any, encode_image: Callable[..., bytes]
) -> None:
    slow = encode_image(Image.new("L", (7000, 9000)), "PNG")
    with ThreadPoolExecutor(1) as client:
        predictions = []

        def in_progress() -> bool:
            if all(prediction.done() for prediction in predictions):
                predictions.append(client.submit(ready_server.predict, slow))
            return "cxr_films_in_progress 1.0" in ready_server.client.get("/metrics").text

        ready_server.wait(in_progress, 60)
        assert {prediction.result().status_code for prediction in predictions} == {200}


def test_log_has_requests_and_never_their_bodies(ready_server: Any) -> None:
    ready_server.predict(b"Jane Doe, born 2019", headers={"X-Request-ID": "logged-1"})
    ready_server.wait(lambda: "request_id=logged-1" in ready_server.log(), 30)
    assert "request method=POST route=/predict status=415" in ready_server.log()
    assert "Jane Doe" not in ready_server.log()
    assert "film.jpeg" not in ready_server.log()


def test_from_no_model_through_swaps_and_a_bad_bundle_to_the_end(
    serve: Callable[..., Any], publish_bundle: PublishBundle, tmp_path: Path, film: bytes
) -> None:
    server = serve(tmp_path)

    for answer in (
        server.client.get("/ready"),
        server.client.get("/model"),
        server.predict(film),
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
            answer = server.predict(film)
            answers.append((answer.status_code, answer.json()))
        return answers

    with ThreadPoolExecutor(3) as clients:
        asking = [clients.submit(ask) for _ in range(3)]
        try:
            for seed in (2, 3, 4):
                directories.append(publish_bundle(server.data_root, seed))
                server.wait_for_version(directories[-1].name)
        finally:
            swapping = False
        answers = [answer for client in asking for answer in client.result()]

    expected = {directory.name: expected_probs(directory, film) for directory in directories}
    assert {status for status, _ in answers} == {200}
    assert {body["model"]["version"] for _, body in answers} == expected.keys()
    for _, body in answers:
        assert body["probs"] == pytest.approx(expected[body["model"]["version"]], abs=1e-6)

    bad = publish_bundle(
        server.data_root, 5, finish=lambda d: (d / "preprocessor_config.json").write_text("{}")
    )
    server.wait(lambda: server.client.get("/ready").json()["warning"] is not None, 60)
    ready = server.client.get("/ready")
    assert ready.status_code == 200
    assert bad.name in ready.json()["warning"]
    assert ready.json()["model"]["version"] == directories[-1].name
    assert server.predict(film).json()["model"]["version"] == directories[-1].name
    assert f"refused asset=convnext_model version={bad.name}" in server.log()

    server.process.send_signal(signal.SIGTERM)
    server.process.wait(60)
    assert "Application shutdown complete" in server.log()
