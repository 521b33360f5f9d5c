"""Health, readiness and metrics."""

from typing import Any


def test_metrics_count_what_happened(ready_server: Any, image: bytes) -> None:
    before = ready_server.samples()
    label = ready_server.predict(image).json()["label"]
    ready_server.predict(b"no image")
    assert ready_server.client.post("/explain", files={"file": image}).status_code == 200
    after = ready_server.samples()
    # An explanation counts as a request, but not as a prediction.
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


def test_prediction_with_maps_counts_once(ready_server: Any, image: bytes) -> None:
    before = ready_server.samples()
    answer = ready_server.client.post("/predict?cam=true", files={"file": image})
    after = ready_server.samples()
    for name, labels in (
        ("cxr_predictions_total", (answer.json()["label"],)),
        ("cxr_confidence_count", ()),
        ("cxr_batch_images_sum", ()),
        ("cxr_requests_total", ("/predict", "200")),
    ):
        assert after[name, labels] - before.get((name, labels), 0) == 1
