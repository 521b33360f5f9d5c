"""The JSON answers of the service."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from cxr_serving.model.bundle import BundleRecord

DISCLAIMER = "For research and education only. Not a medical device; not for clinical decisions."


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


class Classification(BaseModel):
    """What a model says of one image."""

    pred: int = Field(description="index of the most probable class")
    label: str = Field(description="name of the most probable class")
    probs: list[float] = Field(description="calibrated probabilities in class order, summing to 1")
    probabilities: dict[str, float] = Field(description="the same by class name")
    uncertain: bool = Field(
        description="the most probable class has less than the confidence that GET /model tells"
    )


class Timings(BaseModel):
    """Where the time of a request went; of a batch, each the longest of its images."""

    read_ms: float = Field(description="receiving the request's body")
    decode_ms: float = Field(description="decoding and resizing, waiting for it included")
    queue_ms: float = Field(description="waiting for the forward pass")
    inference_ms: float = Field(description="the forward pass")
    batch_images: int = Field(description="images in that forward pass, of all requests")


class Prediction(Classification):
    """Answer of ``POST /predict``."""

    model: ModelName
    timings: Timings
    disclaimer: str = DISCLAIMER
    request_id: str


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="short constant to branch on")
    message: str = Field(description="for people: what, where and what to do")


class ErrorAnswer(BaseModel):
    """Answer of every error."""

    error: ErrorDetail
    request_id: str


class ImageResult(BaseModel):
    """What became of one image of a batch: a prediction or an error."""

    index: int = Field(description="place in the request, from 0")
    prediction: Classification | None
    error: ErrorDetail | None


class BatchPrediction(BaseModel):
    """Answer of ``POST /predict/batch``."""

    results: list[ImageResult] = Field(description="an image each, in the order of the request")
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
    image: str = Field(description="data URL of a PNG: the image as the network saw it")
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
    warning: str | None = Field(description="why a newer model is not served, if that is so")
    dicom: str | None = Field(description="why DICOM is not read, if that is so")
    request_id: str


class Figure(BaseModel):
    """A figure of the report, with its 95 % interval over patients."""

    value: float
    low: float
    high: float


class TestFigures(BaseModel):
    """What the model reached on test images."""

    images: int
    figures: dict[str, Figure]


class ModelDescription(BaseModel):
    """Answer of ``GET /model``."""

    model: BundleRecord
    runtime: str = Field(description="what computes: onnx, onnx-int8 or torch")
    following: Literal["newest", "released"]
    pinned: bool = Field(description="whether it serves whatever is newer")
    confidence: float = Field(description="an answer with less is uncertain")
    test: TestFigures | None = Field(description="of the report; null before there is one")
    test_problem: str | None = Field(description="why a report that is there cannot be read")
    dicom: str | None = Field(description="why DICOM is not read, if that is so")
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
