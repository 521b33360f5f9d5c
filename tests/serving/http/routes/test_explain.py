"""Class activation maps at image size."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

CLASSES = ["bacterial_pneumonia", "normal", "viral_pneumonia"]


def test_explanation_is_of_the_requested_class(ready_server: Any, image: bytes) -> None:
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
    other = explain(label=others[0]).json()
    assert other["label"] == others[0]
    assert not np.allclose(other["cam"], cam)

    picture = explain(format="png")
    assert picture.headers["Content-Type"] == "image/png"
    with Image.open(io.BytesIO(picture.content)) as overlay:
        assert (overlay.size, overlay.mode) == ((64, 64), "RGB")
        assert not np.array_equal(np.asarray(overlay.convert("L")), grey)

    unknown = explain(label="fracture")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (422, "unknown_class")
    assert "normal" in unknown.json()["error"]["message"]
    assert explain(format="gif").status_code == 422
