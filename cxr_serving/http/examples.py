"""Answers as OpenAPI shows them: made of the schemas, with values that no model gave."""

from typing import Any

from cxr_serving.http.errors import ImageRejected, image_detail
from cxr_serving.http.schemas import ErrorAnswer, ModelName, Prediction, Repaired, Timings
from cxr_serving.model import gate
from cxr_serving.model.gate import Reason

_REASONS: tuple[Reason, ...] = ("rotated_90",)
_ID = "5f0c6f4e8f6b4a6f9a0d3c2b1e7d8a90"
_CLASSES = ("bacterial_pneumonia", "normal", "viral_pneumonia")


def _reading(*probs: float) -> dict[str, Any]:
    pred = probs.index(max(probs))
    return {
        "pred": pred,
        "label": _CLASSES[pred],
        "probs": list(probs),
        "probabilities": dict(zip(_CLASSES, probs, strict=True)),
        "uncertain": max(probs) < 0.7,
    }


def _prediction(**answer: Any) -> dict[str, Any]:
    return Prediction(
        **answer,
        cam=None,
        image=None,
        model=ModelName(
            asset="convnext_model",
            version="20260104T031500Z-1a2b3c4d",
            fingerprint="1a2b3c4d".ljust(64, "0"),
            synthetic=False,
        ),
        timings=Timings(
            read_ms=0.6, decode_ms=6.1, queue_ms=0.1, inference_ms=84.2, batch_images=1
        ),
        request_id=_ID,
    ).model_dump(mode="json")


def _named(**examples: Any) -> dict[str, Any]:
    named = {name: {"summary": name.replace("_", " "), "value": v} for name, v in examples.items()}
    return {"content": {"application/json": {"examples": named}}}


PREDICTIONS = _named(
    accepted=_prediction(
        **_reading(0.02, 0.95, 0.03), accepted=True, reasons=[], message=None, repaired=None
    ),
    rejected_because_rotated=_prediction(
        **_reading(0.74, 0.15, 0.11),
        accepted=False,
        reasons=_REASONS,
        message=gate.explain(_REASONS),
        repaired=Repaired(
            **_reading(0.02, 0.95, 0.03), repair=gate.REPAIRS[_REASONS[0]], image=None
        ),
    ),
)
REJECTION = _named(
    image_rejected=ErrorAnswer(
        error=image_detail(ImageRejected(_REASONS)), request_id=_ID
    ).model_dump(mode="json")
)
