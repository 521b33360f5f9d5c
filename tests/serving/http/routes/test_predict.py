"""Answers for one image and for several."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import expected
import numpy as np
import onnx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from cxr_serving.http.app import create_app
from cxr_serving.http.settings import Settings
from cxr_serving.model import bundle
from cxr_serving.model.explanation import grad_cam

PublishBundle = Callable[..., Path]
CLASSES = ["bacterial_pneumonia", "normal", "viral_pneumonia"]


def test_answer_is_the_predictors(ready_server: Any, image: bytes) -> None:
    answer = ready_server.predict(image, headers={"X-Request-ID": "image-1"})
    assert answer.status_code == 200
    body = answer.json()
    [directory] = (ready_server.data_root / "models" / "convnext_model").glob("2*")
    assert body["probs"] == pytest.approx(expected.probabilities(directory, image), abs=1e-6)
    assert body["pred"] == int(np.argmax(body["probs"]))
    assert body["label"] == CLASSES[body["pred"]]
    assert body["probabilities"] == dict(zip(CLASSES, body["probs"], strict=True))
    assert body["model"] == {
        "asset": "convnext_model",
        "version": directory.name,
        "fingerprint": f"{1:08x}".ljust(64, "0"),
        "synthetic": True,
    }
    assert body["uncertain"] == (max(body["probs"]) < 0.7)
    assert body["timings"]["batch_images"] == 1
    assert body["timings"]["inference_ms"] > 0
    assert body["request_id"] == answer.headers["X-Request-ID"] == "image-1"
    assert "Not a medical device" in body["disclaimer"]


def test_cam_adds_the_maps_of_all_classes_and_the_image_they_are_of(
    ready_server: Any, image: bytes
) -> None:
    def post(path: str) -> Any:
        return ready_server.client.post(path, files={"file": image}).json()

    plain, body = post("/predict"), post("/predict?cam=true")
    assert (plain["cam"], plain["image"]) == (None, None)
    assert body["probs"] == pytest.approx(plain["probs"], abs=1e-6)
    assert list(body["cam"]) == CLASSES
    for label, rows in body["cam"].items():
        coarse = np.array(rows, np.float32)
        assert coarse.shape == (2, 2)  # a thirty-second of 64 pixels
        assert coarse.min() >= 0
        explained = post(f"/explain?label={label}")
        np.testing.assert_allclose(grad_cam(coarse, 64), explained["cam"], atol=2e-3)
        assert body["image"] == explained["image"]


def test_model_without_maps_and_gate_predicts_and_explains_nothing(
    publish_bundle: PublishBundle, tmp_path: Path, image: bytes
) -> None:
    def without_maps(directory: Path) -> None:
        network = onnx.load(directory / bundle.ONNX_FILE)
        del network.graph.output[1:]
        onnx.save(network, directory / bundle.ONNX_FILE)
        (directory / bundle.GATE_FILE).unlink()  # without features it has nothing to judge

    publish_bundle(tmp_path, 1, finish=without_maps, gate=None)
    app = create_app(Settings(data_root=tmp_path))
    app.state.service.watcher.poll()
    with TestClient(app) as client:
        answer = client.post("/predict?cam=true", files={"file": image})
        assert answer.status_code == 200, answer.text
        assert answer.json()["cam"] is None
        assert answer.json()["accepted"] is answer.json()["repaired"] is None
        assert answer.json()["reasons"] == []
        assert answer.json()["image"].startswith("data:image/png;base64,")
        explained = client.post("/explain", files={"file": image})
    assert (explained.status_code, explained.json()["error"]["code"]) == (501, "not_explainable")


def test_batch_keeps_order_and_answers_good_images_beside_bad_ones(
    ready_server: Any, image: bytes, encode_image: Callable[..., bytes]
) -> None:
    other = encode_image(Image.linear_gradient("L"), "PNG")
    images = [image, b"no image", other, image]
    answer = ready_server.client.post("/predict/batch", files=[("file", f) for f in images])
    assert answer.status_code == 200
    body = answer.json()
    assert [result["index"] for result in body["results"]] == [0, 1, 2, 3]
    bad = body["results"].pop(1)
    assert bad["prediction"] is None
    assert bad["error"]["code"] == "unsupported_image"
    for result, sent in zip(body["results"], (image, other, image), strict=True):
        assert result["error"] is None
        alone = ready_server.predict(sent).json()
        assert result["prediction"]["probs"] == pytest.approx(alone["probs"], abs=1e-6)
        assert result["prediction"]["label"] == alone["label"]
    assert body["model"] == alone["model"]


def test_batch_of_too_many_images_is_413(ready_server: Any) -> None:
    answer = ready_server.client.post("/predict/batch", files=[("file", b"x")] * 33)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_images")


def test_other_requests_are_answered_while_an_image_is_classified(
    ready_server: Any, encode_image: Callable[..., bytes]
) -> None:
    slow = encode_image(Image.linear_gradient("L").resize((5600, 5700)), "PNG")
    with ThreadPoolExecutor(1) as client:
        predictions = []

        def in_progress() -> bool:
            if all(prediction.done() for prediction in predictions):
                predictions.append(client.submit(ready_server.predict, slow))
            return "cxr_requests_in_progress 2.0" in ready_server.client.get("/metrics").text

        ready_server.wait(in_progress, 60)
        assert {prediction.result().status_code for prediction in predictions} == {200}


def test_image_of_a_client_that_has_left_is_not_computed(
    ready_server: Any, image: bytes, encode_image: Callable[..., bytes]
) -> None:
    left, computed = ("cxr_requests_total", ("/predict", "499")), ("cxr_batch_images_sum", ())
    before = ready_server.samples()
    slow = encode_image(Image.linear_gradient("L").resize((5600, 5700)), "PNG")
    request = ready_server.client.build_request("POST", "/predict", files={"file": slow})
    headers = b"".join(b"%b: %b\r\n" % header for header in request.headers.raw)
    with socket.create_connection(("127.0.0.1", ready_server.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\n" + headers + b"\r\n" + request.read())
    ready_server.wait(lambda: ready_server.samples().get(left) == before.get(left, 0) + 1, 30)
    assert ready_server.predict(image).status_code == 200
    assert ready_server.samples()[computed] == before[computed] + 1
