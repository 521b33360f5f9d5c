"""Class activation maps at image size."""

import asyncio
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import HTTPBearer

from cxr_serving.http import errors, upload
from cxr_serving.http.admission import UserRoute
from cxr_serving.http.errors import ServiceError
from cxr_serving.http.schemas import Explanation, ModelName, png_data_url
from cxr_serving.http.service import ServiceDependency
from cxr_serving.model import explanation

router = APIRouter(
    route_class=UserRoute,
    dependencies=[Depends(HTTPBearer(auto_error=False))],  # for OpenAPI
    responses=errors.responses(401, 429),
)


@router.post(
    "/explain",
    responses=errors.responses(400, 408, 413, 415, 422, 501, 503, 504)
    | {200: {"model": Explanation, "content": {"image/png": {}}}},
    openapi_extra=upload.openapi_body(many=False),
    response_model=None,
)
async def explain(
    request: Request,
    service: ServiceDependency,
    label: Annotated[
        str | None, Query(description="class to explain; the most probable one by default")
    ] = None,
    format: Annotated[
        Literal["json", "png"],
        Query(description="png: the image with the class activation map over it"),
    ] = "json",
) -> Response:
    """Show by Grad-CAM which parts of an image are evidence for a class.

    The map has the size of the network's input. The metrics do not count it as a prediction, so an
    image that is predicted and then explained counts once. As PNG the answer does not say whether
    the model's gate accepts the image.
    """
    with service.batcher.admitted(1):
        model = service.model()
        classes = model.record.classes
        if label is not None and label not in classes:
            raise ServiceError(
                422, "unknown_class", f"no class {label!r}: choose from {', '.join(classes)}"
            )
        image, _ = await service.classify_one(request, model)
    if rejection := service.classifier.rejection(image):
        raise rejection
    if image.answer.cam is None:
        raise ServiceError(
            501, "not_explainable", "this model was exported without class activation maps"
        )
    prediction = service.classification(model, image)
    label = label or prediction.label
    cam = explanation.grad_cam(image.answer.cam[classes.index(label)], model.record.input_size)
    if format == "png":
        picture = await asyncio.to_thread(explanation.overlay, image.pixels, cam)
        return Response(picture, media_type="image/png")
    explained = Explanation(
        label=label,
        cam=np.round(cam.astype(float), 3).tolist(),
        image=await asyncio.to_thread(png_data_url, image.pixels),
        prediction=prediction,
        model=ModelName.of(model.record),
        request_id=request.state.request_id,
    )
    # FastAPI's own encoder would hold the event loop for 60 ms over so many numbers.
    return Response(explained.model_dump_json(), media_type="application/json")
