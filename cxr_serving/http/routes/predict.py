"""Classify images."""

import asyncio
import time
from typing import Annotated

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPBearer

from cxr_serving.http import errors, examples, upload
from cxr_serving.http.admission import UserRoute
from cxr_serving.http.classifier import Classified
from cxr_serving.http.schemas import (
    BatchPrediction,
    ErrorAnswer,
    ImageResult,
    ModelName,
    Prediction,
    Timings,
    png_data_url,
)
from cxr_serving.http.service import Service, ServiceDependency
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import ImageError

router = APIRouter(
    route_class=UserRoute,
    dependencies=[Depends(HTTPBearer(auto_error=False))],  # for OpenAPI
    responses=errors.responses(401, 429),
)


@router.post(
    "/predict",
    responses={
        **errors.responses(400, 408, 413, 415, 503, 504),
        200: examples.PREDICTIONS,
        422: {"model": ErrorAnswer, **examples.REJECTION},
    },
    openapi_extra=upload.openapi_body(many=False),
)
async def predict(
    request: Request,
    service: ServiceDependency,
    cam: Annotated[
        bool,
        Query(
            description="add the class activation maps of all classes, as coarse as the network "
            "computes them, and the image as the network sees it"
        ),
    ] = False,
) -> Prediction:
    """Classify one image.

    The model's gate rejects what is not such an image as the model was trained on. Such an image is
    answered with `accepted: false` and the reasons, or, with `CXR_GATE=reject`, with the error
    `image_rejected`. One that is rotated or inverted is classified as it is; `repaired` is how it
    would be read otherwise.
    """
    with service.batcher.admitted(1):
        model = service.model()
        image, read_seconds = await service.classify_one(request, model)
    service.classifier.count(model, image)
    if rejection := service.classifier.rejection(image):
        raise rejection
    classification = service.classification(model, image)
    if cam and image.repaired and classification.repaired:
        picture = await asyncio.to_thread(png_data_url, image.repaired.pixels)
        classification.repaired.image = picture
    maps = image.answer.cam if cam else None
    return Prediction(
        **classification.model_dump(),
        cam=None if maps is None else dict(zip(model.record.classes, _rounded(maps), strict=True)),
        image=await asyncio.to_thread(png_data_url, image.pixels) if cam else None,
        model=ModelName.of(model.record),
        timings=_timings(read_seconds, [image]),
        request_id=request.state.request_id,
    )


@router.post(
    "/predict/batch",
    responses=errors.responses(400, 408, 413, 422, 503, 504),
    openapi_extra=upload.openapi_body(many=True),
)
async def predict_batch(request: Request, service: ServiceDependency) -> BatchPrediction:
    """Classify several images; an unreadable one gets an error, the others their predictions.

    With `CXR_GATE=reject` one that the gate rejects gets an error, too.
    """
    with service.batcher.admitted(1):
        model = service.model()
        images = await upload.read_images(request, service.settings.max_images)
        read_seconds = time.monotonic() - request.state.started
        with service.batcher.admitted(len(images) - 1):
            results = await service.classify(request, model, images)
    classified = [result for result in results if isinstance(result, Classified)]
    for image in classified:
        service.classifier.count(model, image)
    return BatchPrediction(
        results=[_result(service, model, index, result) for index, result in enumerate(results)],
        model=ModelName.of(model.record),
        timings=_timings(read_seconds, classified),
        request_id=request.state.request_id,
    )


def _result(
    service: Service, model: Predictor, index: int, result: Classified | ImageError
) -> ImageResult:
    if isinstance(result, Classified):
        rejection = service.classifier.rejection(result)
        if rejection is None:
            prediction = service.classification(model, result)
            return ImageResult(index=index, prediction=prediction, error=None)
        result = rejection
    return ImageResult(index=index, prediction=None, error=errors.image_detail(result))


def _rounded(maps: npt.NDArray[np.float32]) -> list[list[list[float]]]:
    """To four significant digits: the scale of a map depends on the network."""
    return [[[float(f"{value:.4g}") for value in row] for row in rows] for rows in maps.tolist()]


def _timings(read_seconds: float, images: list[Classified]) -> Timings:
    def longest(seconds: list[float]) -> float:
        return round(1000 * max(seconds, default=0.0), 2)

    return Timings(
        read_ms=round(1000 * read_seconds, 2),
        decode_ms=longest([image.decode_seconds for image in images]),
        queue_ms=longest([sum(a.queue_seconds for a in image.answers) for image in images]),
        inference_ms=longest([sum(a.inference_seconds for a in image.answers) for image in images]),
        batch_images=max((image.answer.images for image in images), default=0),
    )
