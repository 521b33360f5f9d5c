"""The JSON answers of the service."""

from typing import Literal

from pydantic import BaseModel, Field

from cxr_serving.bundle import BundleRecord

DISCLAIMER = "For research and education only. Not a medical device; not for clinical decisions."


class ModelName(BaseModel):
    """Which model answered."""

    asset: str
    version: str
    fingerprint: str = Field(description="sha256 over all that shaped the training")
    synthetic: bool = Field(description="trained on phantoms, not on radiographs of patients")

    @classmethod
    def of(cls, record: BundleRecord) -> "ModelName":
        """The name of the model that ``record`` describes."""
        return cls(
            asset=record.asset,
            version=record.version,
            fingerprint=record.fingerprint,
            synthetic=record.synthetic,
        )


class Prediction(BaseModel):
    """Answer of ``POST /predict``."""

    pred: int = Field(description="index of the most probable class")
    label: str = Field(description="name of the most probable class")
    probs: list[float] = Field(description="calibrated probabilities in class order, summing to 1")
    probabilities: dict[str, float] = Field(description="the same by class name")
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
    request_id: str


class ModelDescription(BaseModel):
    """Answer of ``GET /model``."""

    model: BundleRecord
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
