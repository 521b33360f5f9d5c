"""Images that the gate rejects: flagged, or answered with an error."""

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import expected
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from cxr_serving.http.app import create_app
from cxr_serving.http.settings import Settings
from cxr_serving.model.bundle import GATE_FILE
from cxr_serving.model.gate import DESCRIPTIONS

PublishBundle = Callable[..., Path]


def bundle_of(server: Any) -> Path:
    [directory] = (server.data_root / "models" / "convnext_model").glob("2*")
    return Path(directory)


def test_accepted_image_has_no_reasons(ready_server: Any, image: bytes) -> None:
    body = ready_server.predict(image).json()
    assert body["accepted"] is True
    assert (body["reasons"], body["message"], body["repaired"]) == ([], None, None)


def test_rotated_image_is_answered_as_it_is_and_as_it_would_be_repaired(
    ready_server: Any, image: bytes, rotated: bytes
) -> None:
    answer = ready_server.client.post("/predict?cam=true", files={"file": rotated})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["accepted"], body["reasons"]) == (False, ["rotated_90"])
    assert body["message"] == DESCRIPTIONS["rotated_90"]
    directory = bundle_of(ready_server)
    assert body["probs"] == pytest.approx(expected.probabilities(directory, rotated), abs=1e-6)
    repaired = body["repaired"]
    upright = ready_server.client.post("/predict?cam=true", files={"file": image}).json()
    assert repaired["repair"] == "rotate_270"
    assert repaired["label"] == upright["label"] != body["label"]
    assert repaired["probs"] == pytest.approx(upright["probs"], abs=1e-3)
    np.testing.assert_allclose(seen(repaired["image"]), seen(upright["image"]), atol=1)
    plain = ready_server.predict(rotated).json()["repaired"]
    assert plain == {**repaired, "image": None}


def seen(url: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as picture:
        return np.asarray(picture, float)


def test_image_that_nothing_repairs_has_a_reason_and_its_probabilities(
    ready_server: Any, coloured: bytes
) -> None:
    body = ready_server.predict(coloured).json()
    assert (body["accepted"], body["reasons"], body["repaired"]) == (False, ["colour"], None)
    assert sum(body["probs"]) == pytest.approx(1, abs=1e-5)
    explained = ready_server.client.post("/explain", files={"file": coloured}).json()
    assert explained["prediction"]["reasons"] == ["colour"]


def test_each_image_of_a_batch_is_judged(
    ready_server: Any, image: bytes, rotated: bytes, coloured: bytes
) -> None:
    images = [("file", file) for file in (image, rotated, coloured)]
    body = ready_server.client.post("/predict/batch", files=images).json()
    found = [result["prediction"] for result in body["results"]]
    assert [answer["reasons"] for answer in found] == [[], ["rotated_90"], ["colour"]]
    assert [answer["repaired"] is None for answer in found] == [True, False, True]
    assert body["timings"]["batch_images"] in (1, 2, 3)


def test_metrics_count_what_the_gate_says_and_the_answers_of_accepted_images_alone(
    ready_server: Any, image: bytes, rotated: bytes
) -> None:
    before = ready_server.samples()
    for file in (image, rotated, rotated):
        assert ready_server.predict(file).status_code == 200
    ready_server.client.post("/explain", files={"file": rotated})
    after = ready_server.samples()
    for name, labels, number in (
        ("cxr_gate_images_total", ("true",), 1),
        ("cxr_gate_images_total", ("false",), 2),
        ("cxr_gate_reasons_total", ("rotated_90",), 2),
        ("cxr_gate_reasons_total", ("colour",), 0),
        ("cxr_drift_images", (), 1),
        ("cxr_confidence_count", (), 1),
        # As they are, repaired, and the explanation twice, too.
        ("cxr_batch_images_sum", (), 7),
    ):
        assert after[name, labels] - before[name, labels] == number, name


@pytest.fixture(scope="module")
def rejecting(
    publish_bundle: PublishBundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("rejecting")
    publish_bundle(root, seed=1)
    app = create_app(Settings(data_root=root, gate="reject"))
    app.state.service.watcher.poll()
    with TestClient(app) as client:
        yield client


def counted(client: TestClient, *names: str) -> list[float]:
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.labels.get("accepted") != "true"
    }
    return [samples[name] for name in names]


def test_rejecting_service_answers_422_with_the_reasons_and_computes_nothing_twice(
    rejecting: TestClient, image: bytes, rotated: bytes
) -> None:
    assert rejecting.post("/predict", files={"file": image}).json()["accepted"] is True
    names = ("cxr_gate_images_total", "cxr_confidence_count", "cxr_batch_images_sum")
    before = counted(rejecting, *names)
    answer = rejecting.post("/predict", files={"file": rotated})
    assert answer.status_code == 422
    assert answer.json()["error"] == {
        "code": "image_rejected",
        "message": DESCRIPTIONS["rotated_90"],
        "reasons": ["rotated_90"],
    }
    after = counted(rejecting, *names)
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 0, 1]
    explained = rejecting.post("/explain?format=png", files={"file": rotated})
    assert (explained.status_code, explained.json()["error"]["code"]) == (422, "image_rejected")
    unreadable = rejecting.post("/predict", files={"file": b"\xff"}).json()["error"]
    assert unreadable.keys() == {"code", "message"}


def test_batch_of_a_rejecting_service_has_an_error_for_the_rejected_image_alone(
    rejecting: TestClient, image: bytes, coloured: bytes
) -> None:
    files = [("file", image), ("file", coloured)]
    first, second = rejecting.post("/predict/batch", files=files).json()["results"]
    assert (first["error"], first["prediction"]["accepted"]) == (None, True)
    assert second["prediction"] is None
    assert (second["error"]["code"], second["error"]["reasons"]) == ("image_rejected", ["colour"])


def test_rejecting_service_serves_no_model_without_a_gate(
    publish_bundle: PublishBundle, tmp_path: Path
) -> None:
    publish_bundle(tmp_path, 1, finish=lambda made: (made / GATE_FILE).unlink(), gate=None)
    watcher = create_app(Settings(data_root=tmp_path, gate="reject")).state.service.watcher
    watcher.poll()
    assert watcher.state.model is None
    assert "has no gate, and CXR_GATE=reject needs one" in watcher.state.problem
