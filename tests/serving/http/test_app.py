"""The service as a user meets it: a process of its own, a data root, and HTTP."""

import base64
import io
import json
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from cxr_serving.model.predictor import Predictor

PublishBundle = Callable[..., Path]
CLASSES = ["bacterial_pneumonia", "normal", "viral_pneumonia"]


def expected_probs(directory: Path, image: bytes) -> list[float]:
    predictor = Predictor(directory)
    probs: list[float] = predictor.predict(np.stack([predictor.preprocessing.decode(image)]))[
        0
    ].tolist()
    return probs


def test_answer_is_the_predictors(ready_server: Any, image: bytes) -> None:
    answer = ready_server.predict(image, headers={"X-Request-ID": "image-1"})
    assert answer.status_code == 200
    body = answer.json()
    [directory] = (ready_server.data_root / "models" / "convnext_model").glob("2*")
    assert body["probs"] == pytest.approx(expected_probs(directory, image), abs=1e-6)
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


def test_model_tells_where_it_comes_from(ready_server: Any) -> None:
    body = ready_server.client.get("/model").json()
    [directory] = (ready_server.data_root / "models" / "convnext_model").glob("2*")
    assert body["model"] == json.loads((directory / "bundle.json").read_text())
    assert (body["runtime"], body["following"], body["pinned"]) == ("onnx", "newest", False)
    assert body["test"] is None
    assert "Not a medical device" in body["disclaimer"]


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


def test_explanation_is_of_the_class_asked_for(ready_server: Any, image: bytes) -> None:
    def explain(**query: str) -> Any:
        return ready_server.client.post("/explain", params=query, files={"file": image})

    alone = ready_server.predict(image).json()
    body = explain().json()
    assert body["label"] == body["prediction"]["label"] == alone["label"]
    assert body["prediction"]["probs"] == pytest.approx(alone["probs"], abs=1e-6)
    cam = np.array(body["cam"])
    assert cam.shape == (64, 64)
    assert (cam.min() >= 0, cam.max()) == (True, 1.0)
    kind, _, data = body["image"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as seen:
        assert (seen.size, seen.mode) == ((64, 64), "L")
        grey = np.asarray(seen)

    others = [name for name in CLASSES if name != alone["label"]]
    asked = explain(label=others[0]).json()
    assert asked["label"] == others[0]
    assert not np.allclose(asked["cam"], cam)

    picture = explain(format="png")
    assert picture.headers["Content-Type"] == "image/png"
    with Image.open(io.BytesIO(picture.content)) as overlay:
        assert (overlay.size, overlay.mode) == ((64, 64), "RGB")
        assert not np.array_equal(np.asarray(overlay.convert("L")), grey)

    unknown = explain(label="fracture")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (422, "unknown_class")
    assert "normal" in unknown.json()["error"]["message"]
    assert explain(format="gif").status_code == 422


def test_answers_may_not_be_framed_sniffed_or_kept(ready_server: Any) -> None:
    for path in ("/", "/health", "/static/main.js", "/nowhere"):
        headers = ready_server.client.get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "server" not in headers


def test_openapi_describes_the_upload_and_the_errors(ready_server: Any) -> None:
    schema = ready_server.client.get("/openapi.json").json()
    assert "Not a medical device" in schema["info"]["description"]
    predict = schema["paths"]["/predict"]["post"]
    form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["file"]["format"] == "binary"
    statuses = {"200", "400", "401", "408", "413", "415", "422", "429", "503", "504"}
    assert predict["responses"].keys() == statuses
    assert ready_server.client.get("/docs").status_code == 200


def samples(server: Any) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(server.client.get("/metrics").text)
        for sample in family.samples
    }


def test_metrics_count_what_happened(ready_server: Any, image: bytes) -> None:
    before = samples(ready_server)
    label = ready_server.predict(image).json()["label"]
    ready_server.predict(b"no image")
    # As the page does; its image is still one.
    assert ready_server.client.post("/explain", files={"file": image}).status_code == 200
    after = samples(ready_server)
    for name, labels in (
        ("cxr_requests_total", ("/predict", "200")),
        ("cxr_requests_total", ("/predict", "415")),
        ("cxr_predictions_total", (label,)),
        ("cxr_confidence_count", ()),
        ("cxr_requests_total", ("/explain", "200")),
    ):
        assert after[name, labels] - before.get((name, labels), 0) == 1
    assert after["cxr_model_ready", ()] == 1
    assert after["cxr_model_loads_total", ()] == 1
    assert ("process_resident_memory_bytes", ()) in after


def test_other_requests_are_answered_while_a_image_is_classified(
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
    before = samples(ready_server)
    slow = encode_image(Image.linear_gradient("L").resize((5600, 5700)), "PNG")
    request = ready_server.client.build_request("POST", "/predict", files={"file": slow})
    headers = b"".join(b"%b: %b\r\n" % header for header in request.headers.raw)
    with socket.create_connection(("127.0.0.1", ready_server.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\n" + headers + b"\r\n" + request.read())
    ready_server.wait(lambda: samples(ready_server).get(left) == before.get(left, 0) + 1, 30)
    assert ready_server.predict(image).status_code == 200
    assert samples(ready_server)[computed] == before[computed] + 1


def test_log_has_requests_and_never_their_bodies(ready_server: Any) -> None:
    ready_server.predict(b"Jane Doe, born 2019", headers={"X-Request-ID": "logged-1"})
    ready_server.wait(lambda: "logged-1" in ready_server.log(), 30)
    [line] = [line for line in ready_server.requests() if line["request_id"] == "logged-1"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/predict", 415)
    assert "Jane Doe" not in ready_server.log()
    assert "image.jpeg" not in ready_server.log()


def test_keys_limits_pins_and_the_report(
    serve: Callable[..., Any], publish_bundle: PublishBundle, tmp_path: Path, image: bytes
) -> None:
    keys, admins = tmp_path / "keys", tmp_path / "admins"
    keys.write_text("# of the wards\nward-3 aaaaaaaaaaaaaaaa\n")
    admins.write_text("on-call bbbbbbbbbbbbbbbb\n")
    server = serve(tmp_path, keys_file=keys, admin_keys_file=admins, rate_limit="12/minute")
    older = publish_bundle(server.data_root, seed=1)
    newer = publish_bundle(server.data_root, seed=2)
    report = server.data_root / "reports" / newer.name / "metrics.json"
    report.parent.mkdir(parents=True)
    figures = {"accuracy": 0.8, "macro_f1": 0.75, "auroc_macro_ovr": 0.9}
    intervals = {name: [value - 0.1, value + 0.05] for name, value in figures.items()}
    report.write_text(json.dumps({"images": 624, **figures, "intervals": intervals, "more": 1}))
    server.wait_for_version(newer.name)

    def ask(method: str, path: str, key: str = "a" * 16, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        answer: httpx.Response = server.client.request(method, path, headers=headers, **options)
        return answer

    for key in ("x", "a" * 15, "b" * 16):
        rejected = ask("POST", "/predict", key, files={"file": image})
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (401, "unauthorized")
        assert rejected.headers["WWW-Authenticate"] == "Bearer"
    assert server.client.get("/model").status_code == 401
    assert ask("POST", "/predict", files={"file": image}).status_code == 200
    test = ask("GET", "/model").json()["test"]
    assert test["images"] == 624
    assert test["figures"]["macro_f1"] == {"value": 0.75, "low": 0.65, "high": 0.8}
    report.write_text("{")
    broken = ask("GET", "/model").json()
    assert broken["test"] is None
    assert str(report) in broken["test_problem"]

    assert ask("POST", "/model/pin", json={"version": older.name}).status_code == 401
    pinned = ask("POST", "/model/pin", "b" * 16, json={"version": older.name})
    assert pinned.status_code == 200
    assert pinned.json()["pinned"] == older.name
    assert [m["status"] for m in pinned.json()["models"]] == ["previous", "serving"]
    answer = ask("POST", "/predict", files={"file": image}).json()
    assert answer["model"]["version"] == older.name
    assert ask("GET", "/model").json()["pinned"] is True
    missing = ask("POST", "/model/pin", "b" * 16, json={"version": "20200101T000000Z-00000000"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (409, "not_servable")
    wrong = ask("POST", "/model/pin", "b" * 16, json={"version": "../../etc"})
    assert wrong.status_code == 422
    assert ask("POST", "/model/unpin", "b" * 16).json()["pinned"] is None
    assert ask("GET", "/models").json()["models"][0]["status"] == "serving"

    keys.write_text("ward-4 cccccccccccccccc\n")
    assert ask("GET", "/models").status_code == 401
    allowed = [ask("GET", "/models", "c" * 16) for _ in range(13)]
    assert [answer.status_code for answer in allowed] == [200] * 12 + [429]
    assert allowed[-1].json()["error"]["code"] == "rate_limited"
    assert 1 <= int(allowed[-1].headers["Retry-After"]) <= 60
    keys.write_text("")
    assert ask("GET", "/models", "d" * 16).status_code == 401
    assert "the keys of before stay valid" in server.log()
    assert "aaaaaaaa" not in server.log()


def test_stopping_is_told_first_and_loses_no_request(
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


def test_from_no_model_through_swaps_and_a_bad_bundle_to_the_end(
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

    expected = {directory.name: expected_probs(directory, image) for directory in directories}
    assert {status for status, _ in answers} == {200}
    assert {body["model"]["version"] for _, body in answers} <= expected.keys()
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
    assert server.predict(image).json()["model"]["version"] == directories[-1].name
    assert '"message": "rejected"' in server.log()

    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert "Application shutdown complete" in server.log()
