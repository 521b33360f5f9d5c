"""The JSON answers of the service."""

from datetime import datetime
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from cxr_serving.model import DISCLAIMER, explanation
from cxr_serving.model.bundle import BundleRecord
from cxr_serving.model.gate import DESCRIPTIONS, Reason, Repair
from cxr_serving.model.metrics import Headline
from cxr_serving.model.report import Report

_METRICS: tuple[Headline, ...] = ("accuracy", "macro_f1", "auroc_macro_ovr")


def png_data_url(pixels: npt.NDArray[np.uint8]) -> str:
    """A grey image, uint8 [H, W], as JSON can carry it."""
    return explanation.data_url(explanation.png(pixels))


class ModelName(BaseModel):
    """Which model answered."""

    asset: str
    version: str
    fingerprint: str = Field(description="sha256 over all that shaped the training")
    synthetic: bool = Field(
        description="trained on synthetic images, not on radiographs of patients"
    )

    @classmethod
    def of(cls, record: BundleRecord) -> "ModelName":
        """The name of the model that ``record`` describes."""
        return cls(
            asset=record.asset,
            version=record.version,
            fingerprint=record.fingerprint,
            synthetic=record.synthetic,
        )


class Reading(BaseModel):
    """What a model reads in an image."""

    pred: int = Field(description="index of the most probable class")
    label: str = Field(description="name of the most probable class")
    probs: list[float] = Field(description="calibrated probabilities in class order, summing to 1")
    probabilities: dict[str, float] = Field(description="the same by class name")
    uncertain: bool = Field(
        description="the most probable class has less than the `confidence` of GET /model"
    )


class Repaired(Reading):
    """How a rejected image would be read if it were repaired."""

    repair: Repair = Field(
        description="what was done to a copy of the image: turned clockwise by so many degrees, or "
        "black and white exchanged"
    )
    image: str | None = Field(
        description="with `cam=true`, a data URL of a PNG: the copy as the network sees it"
    )


class Classification(Reading):
    """A model's answer for one image."""

    accepted: bool | None = Field(
        description="whether the gate accepts the image, as one of the kind that the model was "
        "trained on; if not, the probabilities mean nothing. True does not mean that the answer "
        "is right. Null: the model has no gate"
    )
    reasons: list[Reason] = Field(
        description="why the gate rejects it. "
        + " ".join(f"`{reason}`: {text}" for reason, text in DESCRIPTIONS.items())
    )
    message: str | None = Field(
        description="the reasons in sentences, for people, with a remedy; null without reasons"
    )
    repaired: Repaired | None = Field(
        description="of a rejected image that is rotated or inverted: how it would be read "
        "otherwise. Null where the gate rejects the repaired image, too, or no time was left for it"
    )


class Timings(BaseModel):
    """Where the time of a request went, in milliseconds; for a batch, of its slowest image.

    That of a repaired image, which is computed in a forward pass of its own, is included.
    """

    read_ms: float = Field(description="receiving the request's body")
    decode_ms: float = Field(description="decoding and resizing, including the wait for it")
    queue_ms: float = Field(description="waiting for the forward pass")
    inference_ms: float = Field(description="the forward pass, and judging its images")
    batch_images: int = Field(description="images in that forward pass, from all requests")


class Prediction(Classification):
    """Answer of ``POST /predict``."""

    cam: dict[str, list[list[float]]] | None = Field(
        description="with `cam=true`, by class name: the Grad-CAM of the network's last stage, "
        "rows from the top, over the whole image. It is coarse (7 x 7 for an input of 224 pixels) "
        "and no outline of a finding. Raw: at least 0, without an upper bound, in units of the "
        "class's logit, so larger is more evidence for that class; not a probability. `/explain` "
        "interpolates a map bilinearly and divides it by its maximum. Null without `cam=true`, and "
        "for a model without maps, for which `/explain` answers 501"
    )
    image: str | None = Field(
        description="with `cam=true`, a data URL of a PNG: the image as the network sees it"
    )
    model: ModelName
    timings: Timings
    disclaimer: str = DISCLAIMER
    request_id: str


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="short constant for programs")
    message: str = Field(description="for people: what, where, and the remedy")
    reasons: list[Reason] | None = Field(
        default=None,
        exclude_if=lambda reasons: reasons is None,
        description="of `image_rejected` alone: why the gate rejects the image",
    )


class ErrorAnswer(BaseModel):
    """Answer of every error."""

    error: ErrorDetail
    request_id: str


class ImageResult(BaseModel):
    """The result for one image of a batch: a prediction or an error."""

    index: int = Field(description="place in the request, from 0")
    prediction: Classification | None
    error: ErrorDetail | None


class BatchPrediction(BaseModel):
    """Answer of ``POST /predict/batch``."""

    results: list[ImageResult] = Field(description="one per image, in the order of the request")
    model: ModelName
    timings: Timings
    disclaimer: str = DISCLAIMER
    request_id: str


class Explanation(BaseModel):
    """Answer of ``POST /explain``."""

    label: str = Field(description="name of the class that is explained")
    cam: list[list[float]] = Field(
        description="Grad-CAM in 0..1, rows from the top, over the whole image"
    )
    image: str = Field(description="data URL of a PNG: the image as the network sees it")
    prediction: Classification
    model: ModelName
    disclaimer: str = DISCLAIMER
    request_id: str


class Health(BaseModel):
    """Answer of ``GET /health``."""

    status: Literal["alive"] = "alive"
    request_id: str


class Readiness(BaseModel):
    """Answer of ``GET /ready`` while a model serves."""

    status: Literal["ready"] = "ready"
    model: ModelName
    warning: str | None = Field(description="why a newer model does not serve, if so")
    dicom: str | None = Field(description="why DICOM cannot be read, if so")
    request_id: str


class Metric(BaseModel):
    """A metric of the report, with its 95 % confidence interval over patients."""

    value: float
    low: float
    high: float


class TestMetrics(BaseModel):
    """Metrics of the model on test images; those that are not defined on them are left out."""

    images: int
    metrics: dict[str, Metric]

    @classmethod
    def of(cls, report: Report) -> Self:
        """From the report on the model."""
        metrics = {}
        for name in _METRICS:
            value, interval = report.headline(name)
            if value is not None and interval is not None:
                metrics[name] = Metric(value=value, low=interval[0], high=interval[1])
        return cls(images=report.images, metrics=metrics)


class ModelDescription(BaseModel):
    """Answer of ``GET /model``."""

    model: BundleRecord
    runtime: str = Field(description="runtime of the network: onnx, onnx-int8 or torch")
    following: Literal["newest", "released"]
    pinned: bool = Field(description="whether it serves even when a newer one appears")
    confidence: float = Field(description="answers with a lower probability are uncertain")
    gate: Literal["flag", "reject"] = Field(
        description="whether an image that the gate rejects is answered with `accepted: false`, or "
        "with the error `image_rejected`; `model.gate` says how often that happens to images of "
        "validation"
    )
    test: TestMetrics | None = Field(description="from the report; null before there is one")
    test_problem: str | None = Field(description="why the report cannot be read, if so")
    dicom: str | None = Field(description="why DICOM cannot be read, if so")
    disclaimer: str = DISCLAIMER
    request_id: str


class ModelVersion(BaseModel):
    """A version on disk."""

    version: str
    created_at: datetime | None
    synthetic: bool | None
    validation: dict[str, float] | None
    status: Literal["serving", "previous", "available", "rejected"]
    reason: str | None = Field(description="why it was rejected")


class ModelVersions(BaseModel):
    """Answer of ``GET /models`` and of pinning."""

    models: list[ModelVersion] = Field(description="newest first")
    pinned: str | None
    request_id: str


class Pin(BaseModel):
    """Body of ``POST /model/pin``."""

    version: str = Field(pattern=r"^\d{8}T\d{6}Z-[0-9a-f]{8}$")
