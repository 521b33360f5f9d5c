"""Assembles the FastAPI application: the service, its routes, and what surrounds every request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from cxr_serving.http import errors, tracing
from cxr_serving.http.middleware import RequestMiddleware
from cxr_serving.http.routes import explain, models, operations, page, predict
from cxr_serving.http.service import Service
from cxr_serving.http.settings import Settings
from cxr_serving.model import DISCLAIMER

_DESCRIPTION = f"""\
Classifies a frontal chest radiograph; `GET /model` names the classes.

**{DISCLAIMER}** Images are processed in memory and never stored.
"""


def create_app(settings: Settings) -> FastAPI:
    """An application with these settings; it looks for a model once it is started.

    Raises:
        KeysError: a key file cannot be read.
        TracingError: the file of headers of traces cannot be read.
        RemoteError: the client of the bucket is configured wrongly.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()
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
    app.state.service = service
    app.state.draining = False
    app.add_middleware(RequestMiddleware, metrics=service.metrics)
    tracer = tracing.install(app, settings.traces_headers_file)
    errors.install(app)
    for router in (
        operations.router,
        page.router,
        predict.router,
        explain.router,
        models.router,
        models.admin_router,
    ):
        app.include_router(router)
    app.mount("/static", page.STATIC)
    return app
