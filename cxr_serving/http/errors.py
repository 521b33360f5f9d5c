"""The one JSON shape of every error: ``{"error": {"code", "message"}, "request_id"}``."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cxr_serving.http.schemas import ErrorAnswer, ErrorDetail
from cxr_serving.images.dicom import DicomUnavailable
from cxr_serving.model import gate, validation
from cxr_serving.model.gate import Reason
from cxr_serving.model.preprocessing import (
    ImageError,
    ImageTooLarge,
    UndecodableImage,
    UnsupportedImage,
)


class ImageRejected(ImageError):
    """The gate rejects an image, and ``CXR_GATE=reject``.

    Attributes:
        reasons: of the gate.
    """

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__(gate.explain(reasons))
        self.reasons = reasons


_IMAGE_ERRORS: Mapping[type[ImageError], tuple[int, str]] = {
    UnsupportedImage: (415, "unsupported_image"),
    ImageTooLarge: (413, "too_many_pixels"),
    UndecodableImage: (400, "undecodable_image"),
    DicomUnavailable: (503, "dicom_unavailable"),
    ImageRejected: (422, "image_rejected"),
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route to OpenAPI."""
    return {status: {"model": ErrorAnswer} for status in statuses}


def image_detail(error: ImageError) -> ErrorDetail:
    """The error for an image that cannot be used."""
    _, code = _IMAGE_ERRORS[type(error)]
    reasons = list(error.reasons) if isinstance(error, ImageRejected) else None
    return ErrorDetail(code=code, message=str(error), reasons=reasons)


class ServiceError(Exception):
    """A request that cannot be answered.

    Attributes:
        status: HTTP status of the answer.
        code: short constant for programs.
        headers: of the answer, besides the usual ones.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def error_response(
    request_id: str, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that failed."""
    return _response(request_id, status, ErrorDetail(code=code, message=message), headers)


def _response(
    request_id: str, status: int, detail: ErrorDetail, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    answer = ErrorAnswer(error=detail, request_id=request_id)
    return JSONResponse(answer.model_dump(), status, headers)


def install(app: FastAPI) -> None:
    """Make ``app`` answer all errors in the one shape."""

    @app.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> JSONResponse:
        return error_response(
            request.state.request_id, error.status, error.code, str(error), error.headers
        )

    @app.exception_handler(ImageError)
    async def image_error(request: Request, error: ImageError) -> JSONResponse:
        status, _ = _IMAGE_ERRORS[type(error)]
        return _response(request.state.request_id, status, image_detail(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).name.lower()
        return error_response(
            request.state.request_id, error.status_code, code, error.detail, error.headers
        )

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        message = "; ".join(validation.problems(error))
        return error_response(request.state.request_id, 422, "invalid_request", message)
