"""The HTTP service: ``python -m cxr_serving``, or ``uvicorn cxr_serving.app:app``."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from cxr_serving import errors, upload
from cxr_serving.errors import ServiceError
from cxr_serving.metrics import Metrics
from cxr_serving.middleware import RequestMiddleware
from cxr_serving.predictor import Predictor
from cxr_serving.schemas import (
    DISCLAIMER,
    ErrorAnswer,
    Health,
    ModelDescription,
    ModelName,
    Prediction,
    Readiness,
)
from cxr_serving.settings import ASSET, Settings
from cxr_serving.watcher import State, Watcher

_DESCRIPTION = f"""\
Classifies a frontal chest radiograph of a child as bacterial pneumonia, viral pneumonia or normal.

**{DISCLAIMER}** Films are processed in memory and never stored.
"""


def create_app(settings: Settings) -> FastAPI:
    """The service with these settings; it begins to look for a model when it is started."""
    metrics = Metrics()
    watcher = Watcher(
        settings.directory,
        ASSET,
        settings.device,
        settings.poll_seconds,
        metrics,
    )
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        if settings.torch_threads is not None:
            torch.set_num_threads(settings.torch_threads)
        watcher.start()
        yield
        await asyncio.to_thread(watcher.stop)
        worker.shutdown()

    app = FastAPI(
        title="Chest X-ray classifier",
        description=_DESCRIPTION,
        version="1",
        lifespan=lifespan,
    )
    app.add_middleware(RequestMiddleware, metrics=metrics)
    errors.install(app)

    def serving(state: State) -> Predictor:
        if state.model is None:
            retry = max(1, round(settings.poll_seconds))
            raise ServiceError(503, "not_ready", str(state.problem), {"Retry-After": str(retry)})
        return state.model

    def classify(model: Predictor, film: bytes) -> list[float]:
        with metrics.inference_seconds.time():
            pixels = model.preprocessing.decode(film)
            probs: list[float] = model.predict(np.stack([pixels]))[0].tolist()
            return probs

    @app.post(
        "/predict", responses=_errors(400, 413, 415, 422, 503), openapi_extra=upload.OPENAPI_BODY
    )
    async def predict(request: Request) -> Prediction:
        """Classify one film."""
        model = serving(watcher.state)
        film = await upload.read_film(request, settings.max_upload_bytes)
        with metrics.films_in_progress.track_inprogress():
            probs = await asyncio.get_running_loop().run_in_executor(worker, classify, model, film)
        classes = model.record.classes
        pred = int(np.argmax(probs))
        metrics.predictions.labels(classes[pred]).inc()
        return Prediction(
            pred=pred,
            label=classes[pred],
            probs=probs,
            probabilities=dict(zip(classes, probs, strict=True)),
            model=ModelName.of(model.record),
            request_id=request.state.request_id,
        )

    @app.get("/health")
    async def health(request: Request) -> Health:
        """Whether the process answers."""
        return Health(request_id=request.state.request_id)

    @app.get("/ready", responses=_errors(503))
    async def ready(request: Request) -> Readiness:
        """Whether a model serves, and whether it is the newest."""
        state = watcher.state
        return Readiness(
            model=ModelName.of(serving(state).record),
            warning=state.problem,
            request_id=request.state.request_id,
        )

    @app.get("/model", responses=_errors(503))
    async def model(request: Request) -> ModelDescription:
        """The record of the model that serves, and what it must not be used for."""
        return ModelDescription(
            model=serving(watcher.state).record, request_id=request.state.request_id
        )

    @app.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Metrics in the Prometheus text format."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return app


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer} for status in statuses}


app = create_app(Settings())
