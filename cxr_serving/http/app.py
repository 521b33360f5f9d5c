"""The HTTP service: its routes, and what they are made of."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from cxr_serving.http import errors, figures, tracing, upload
from cxr_serving.http.admission import guarded
from cxr_serving.http.batching import Batcher
from cxr_serving.http.classifier import Classified, Classifier
from cxr_serving.http.errors import ServiceError
from cxr_serving.http.figures import FiguresError
from cxr_serving.http.keys import Guard, Keys
from cxr_serving.http.metrics import Metrics
from cxr_serving.http.middleware import RequestMiddleware
from cxr_serving.http.schemas import (
    DISCLAIMER,
    BatchPrediction,
    Classification,
    ErrorAnswer,
    Explanation,
    Health,
    ImageResult,
    ModelDescription,
    ModelName,
    ModelVersion,
    ModelVersions,
    Pin,
    Prediction,
    Readiness,
    Timings,
)
from cxr_serving.http.settings import ASSET, Settings
from cxr_serving.http.watcher import State, Version, Watcher
from cxr_serving.model import explanation
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import ImageError

_DESCRIPTION = f"""\
Classifies a frontal chest radiograph of a child as bacterial pneumonia, viral pneumonia or normal.

**{DISCLAIMER}** Images are processed in memory and never stored.
"""
_PAGE = Path(str(files("cxr_serving.http") / "page"))
_ADMIN_BYTES = 2**16  # of the body of a request that says which model serves


def create_app(settings: Settings) -> FastAPI:
    """The service with these settings; it begins to look for a model when it is started.

    Raises:
        KeysError: a file of keys cannot be read.
    """
    metrics = Metrics()
    guard = Guard(
        Keys(settings.keys_file) if settings.keys_file else None,
        Keys(settings.admin_keys_file) if settings.admin_keys_file else None,
        settings.rate_limit,
        metrics,
    )
    watcher = Watcher(
        settings.directory,
        ASSET,
        lambda directory: _load(directory, settings),
        settings.poll_seconds,
        metrics,
        settings.pin,
    )
    batcher = Batcher(
        settings.max_batch,
        settings.max_delay_seconds,
        settings.max_queue,
        settings.deadline_seconds,
        metrics,
    )
    classifier = Classifier(batcher, settings.threads, settings.confidence, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        computing = asyncio.create_task(batcher.run())
        watcher.start()
        classifier.start()
        yield
        await asyncio.to_thread(watcher.stop)
        computing.cancel()
        await asyncio.wait([computing])
        batcher.close()
        classifier.close()
        if tracer is not None:
            await asyncio.to_thread(tracer.shutdown)

    app = FastAPI(
        title="Chest X-ray classifier",
        description=_DESCRIPTION,
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.draining = False
    app.add_middleware(RequestMiddleware, metrics=metrics)
    tracer = tracing.install(app)
    errors.install(app)
    open_to_all = APIRouter()
    users = APIRouter(
        route_class=guarded(guard.user, settings.max_upload_bytes, settings.deadline_seconds),
        dependencies=[Depends(HTTPBearer(auto_error=False))],  # for OpenAPI
        responses=_errors(401, 429),
    )
    admins = APIRouter(
        route_class=guarded(guard.admin, _ADMIN_BYTES, settings.deadline_seconds),
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses=_errors(401, 403),
    )

    def serving() -> Predictor:
        state = watcher.state
        if state.model is None:
            retry = max(1, round(settings.poll_seconds))
            raise ServiceError(503, "not_ready", str(state.problem), {"Retry-After": str(retry)})
        return state.model

    def _deadline(request: Request) -> float:
        started: float = request.state.started
        return started + settings.deadline_seconds

    async def classify(
        request: Request, model: Predictor, images: list[bytes]
    ) -> list[Classified | ImageError]:
        # What nobody waits for any more is not computed. After the body, a request has only one
        # thing to say: that its client has left.
        left = asyncio.ensure_future(request.receive())
        results = asyncio.ensure_future(classifier.classify(model, images, _deadline(request)))
        try:
            await asyncio.wait({left, results}, return_when=asyncio.FIRST_COMPLETED)
            if not results.done():
                raise ClientDisconnect
            return await results
        finally:
            left.cancel()
            results.cancel()

    def classification(model: Predictor, image: Classified) -> Classification:
        classes = model.record.classes
        probabilities = image.answer.probabilities
        probs: list[float] = probabilities.tolist()
        pred = int(np.argmax(probs))
        return Classification(
            pred=pred,
            label=classes[pred],
            probs=probs,
            probabilities=dict(zip(classes, probs, strict=True)),
            uncertain=classifier.uncertain(probabilities),
        )

    async def one(request: Request, model: Predictor) -> tuple[Classified, float]:
        [image] = await upload.read_images(request, 1)
        read_seconds = time.monotonic() - request.state.started
        [result] = await classify(request, model, [image])
        if isinstance(result, ImageError):
            raise result
        return result, read_seconds

    @users.post(
        "/predict",
        responses=_errors(400, 408, 413, 415, 422, 503, 504),
        openapi_extra=upload.openapi_body(many=False),
    )
    async def predict(request: Request) -> Prediction:
        """Classify one image."""
        with batcher.admitted(1):
            model = serving()
            image, read_seconds = await one(request, model)
        classifier.count(model, image)
        return Prediction(
            **classification(model, image).model_dump(),
            model=ModelName.of(model.record),
            timings=_timings(read_seconds, [image]),
            request_id=request.state.request_id,
        )

    @users.post(
        "/predict/batch",
        responses=_errors(400, 408, 413, 422, 503, 504),
        openapi_extra=upload.openapi_body(many=True),
    )
    async def predict_batch(request: Request) -> BatchPrediction:
        """Classify several images; one that cannot be read does not spoil the others."""
        with batcher.admitted(1):
            model = serving()
            images = await upload.read_images(request, settings.max_images)
            read_seconds = time.monotonic() - request.state.started
            with batcher.admitted(len(images) - 1):
                results = await classify(request, model, images)
        classified = [result for result in results if isinstance(result, Classified)]
        for image in classified:
            classifier.count(model, image)
        return BatchPrediction(
            results=[
                ImageResult(index=index, prediction=None, error=errors.image_detail(result))
                if isinstance(result, ImageError)
                else ImageResult(index=index, prediction=classification(model, result), error=None)
                for index, result in enumerate(results)
            ],
            model=ModelName.of(model.record),
            timings=_timings(read_seconds, classified),
            request_id=request.state.request_id,
        )

    @users.post(
        "/explain",
        responses=_errors(400, 408, 413, 415, 422, 501, 503, 504)
        | {200: {"model": Explanation, "content": {"image/png": {}}}},
        openapi_extra=upload.openapi_body(many=False),
        response_model=None,
    )
    async def explain(
        request: Request,
        label: Annotated[
            str | None, Query(description="class to explain; the most probable one by default")
        ] = None,
        format: Annotated[
            Literal["json", "png"],
            Query(description="png: the image with the class activation map over it"),
        ] = "json",
    ) -> Response:
        """Show by Grad-CAM which parts of an image evidence for a class.

        It is no prediction to the metrics, so that an image that is predicted and then explained,
        for one class or for all, is counted once.
        """
        with batcher.admitted(1):
            model = serving()
            classes = model.record.classes
            if label is not None and label not in classes:
                raise ServiceError(
                    422, "unknown_class", f"no class {label!r}; there are {', '.join(classes)}"
                )
            image, _ = await one(request, model)
        if image.answer.cam is None:
            raise ServiceError(501, "not_explainable", "this model was exported without Grad-CAM")
        answer = classification(model, image)
        label = label or answer.label
        cam = explanation.grad_cam(image.answer.cam[classes.index(label)], model.record.input_size)
        if format == "png":
            picture = await asyncio.to_thread(explanation.overlay, image.pixels, cam)
            return Response(picture, media_type="image/png")
        explained = Explanation(
            label=label,
            cam=np.round(cam.astype(float), 3).tolist(),
            image=_data_url(image.pixels),
            prediction=answer,
            model=ModelName.of(model.record),
            request_id=request.state.request_id,
        )
        # FastAPI's own encoder would hold the event loop for 60 ms over so many numbers.
        return Response(explained.model_dump_json(), media_type="application/json")

    @users.get("/model", responses=_errors(503))
    async def model(request: Request) -> ModelDescription:
        """The record of the model that serves, and what it reached on test images."""
        model = serving()
        directory = settings.directory / model.record.version
        test, problem = None, None
        try:
            test = await asyncio.to_thread(figures.read, settings.data_root, directory)
        except FiguresError as error:
            problem = str(error)
        return ModelDescription(
            model=model.record,
            runtime=model.runtime,
            following=settings.follow,
            pinned=watcher.state.pinned is not None,
            confidence=settings.confidence,
            test=test,
            test_problem=problem,
            dicom=classifier.dicom_problem,
            request_id=request.state.request_id,
        )

    async def versions(request: Request) -> ModelVersions:
        found = await asyncio.to_thread(watcher.versions)
        state = watcher.state
        return ModelVersions(
            models=[_describe(version, state) for version in found],
            pinned=state.pinned,
            request_id=request.state.request_id,
        )

    @users.get("/models")
    async def models(request: Request) -> ModelVersions:
        """The versions on disk, newest first."""
        return await versions(request)

    @admins.post("/model/pin", responses=_errors(400, 408, 409, 413, 422))
    async def pin(request: Request, body: Pin) -> ModelVersions:
        """Serve one version, whatever becomes newest: a rollback."""
        try:
            await asyncio.to_thread(watcher.pin, body.version)
        except BundleError as error:
            raise ServiceError(409, "not_servable", f"nothing has changed: {error}") from error
        return await versions(request)

    @admins.post("/model/unpin")
    async def unpin(request: Request) -> ModelVersions:
        """Follow the newest model again."""
        await asyncio.to_thread(watcher.unpin)
        return await versions(request)

    @open_to_all.get("/health")
    async def health(request: Request) -> Health:
        """Whether the process answers."""
        return Health(request_id=request.state.request_id)

    @open_to_all.get("/ready", responses=_errors(503))
    async def ready(request: Request) -> Readiness:
        """Whether a model serves, and whether it is the newest."""
        if app.state.draining:
            raise ServiceError(503, "draining", "the service is being stopped")
        model = serving()
        if batcher.progress.stalled:
            raise ServiceError(
                503,
                "stalled",
                f"images wait and none was answered for {settings.deadline_seconds:g} s: send "
                "fewer, and restart the service if it stays so",
            )
        return Readiness(
            model=ModelName.of(model.record),
            warning=watcher.state.problem,
            dicom=classifier.dicom_problem,
            request_id=request.state.request_id,
        )

    @open_to_all.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Metrics in the Prometheus text format."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @open_to_all.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html")

    @open_to_all.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(_PAGE / "docs.html")

    for router in (open_to_all, users, admins):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=_PAGE, packages=[("fastapi_offline", "static")]))
    return app


def _load(directory: Path, settings: Settings) -> Predictor:
    """A model that has proved itself on its reference images and has met every size of batch."""
    model = Predictor(directory, settings.device, settings.threads, settings.precision == "int8")
    model.check()
    model.warm_up(settings.max_batch)
    return model


def _timings(read_seconds: float, images: list[Classified]) -> Timings:
    def longest(seconds: list[float]) -> float:
        return round(1000 * max(seconds, default=0.0), 2)

    return Timings(
        read_ms=round(1000 * read_seconds, 2),
        decode_ms=longest([image.decode_seconds for image in images]),
        queue_ms=longest([image.answer.queue_seconds for image in images]),
        inference_ms=longest([image.answer.inference_seconds for image in images]),
        batch_images=max((image.answer.images for image in images), default=0),
    )


def _describe(version: Version, state: State) -> ModelVersion:
    record = version.record
    status: Literal["serving", "previous", "available", "rejected"] = "available"
    if state.model is not None and version.version == state.model.record.version:
        status = "serving"
    elif version.reason is not None:
        status = "rejected"
    elif state.previous is not None and version.version == state.previous.record.version:
        status = "previous"
    return ModelVersion(
        version=version.version,
        created_at=record and record.created_at,
        synthetic=record and record.synthetic,
        validation=record and record.validation,
        status=status,
        reason=version.reason,
    )


def _data_url(image: npt.NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(explanation.png(image)).decode()


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer} for status in statuses}
