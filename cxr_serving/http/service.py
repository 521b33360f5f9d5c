"""The service behind the routes: one object that owns the model and all that works for it."""

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from cxr_serving.http import upload
from cxr_serving.http.batching import Batcher
from cxr_serving.http.classifier import Classified, Classifier
from cxr_serving.http.errors import ServiceError
from cxr_serving.http.keys import Guard, Keys
from cxr_serving.http.limiter import Limiter
from cxr_serving.http.metrics import Metrics
from cxr_serving.http.schemas import Classification, Repaired
from cxr_serving.http.settings import ASSET, Settings
from cxr_serving.http.watcher import Watcher
from cxr_serving.model import gate
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import ImageError


class Service:
    """Finds the model, guards it, and classifies the images of requests.

    Attributes:
        settings: of this service.
        metrics: what Prometheus reads.
        limiter: counts requests, where there is a rate limit.
        guard: checks keys and the rate limit.
        watcher: finds and loads the model that serves.
        batcher: bounds the images in flight and runs the forward passes.
        classifier: decodes images and passes them to the batcher.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare everything; :meth:`start` runs it.

        Raises:
            KeysError: a key file cannot be read.
            RemoteError: the client of the bucket is configured wrongly.
        """
        self.settings = settings
        self.metrics = Metrics()
        self.limiter = _limiter(settings, self.metrics)
        self.guard = Guard(
            Keys(settings.keys_file) if settings.keys_file else None,
            Keys(settings.admin_keys_file) if settings.admin_keys_file else None,
            self.limiter,
            self.metrics,
        )
        self.watcher = Watcher(
            settings.directory,
            ASSET,
            lambda directory: _load(directory, settings),
            settings.poll_seconds,
            self.metrics,
            settings.pin,
            settings.replica(),
        )
        self.batcher = Batcher(
            # A pass of ONNX Runtime is one image on one processor; a GPU has all its cores in each.
            settings.threads if settings.device == "cpu" else 1,
            settings.max_delay_seconds,
            settings.max_queue,
            settings.deadline_seconds,
            self.metrics,
        )
        self.classifier = Classifier(
            self.batcher, settings.threads, settings.confidence, settings.gate, self.metrics
        )
        self._computing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to look for a model and to compute."""
        if self.limiter is not None:
            await self.limiter.start()
        self._computing = asyncio.create_task(self.batcher.run())
        self.watcher.start()
        self.classifier.start(after=self.watcher.polled)

    async def stop(self) -> None:
        """Stop all threads and processes; waits for a model that is being loaded."""
        await asyncio.to_thread(self.watcher.stop)
        if self._computing is not None:
            self._computing.cancel()
            await asyncio.wait([self._computing])
        self.batcher.close()
        self.classifier.close()
        if self.limiter is not None:
            await self.limiter.close()

    def model(self) -> Predictor:
        """The model that serves; a request takes it once and keeps it.

        Raises:
            ServiceError: 503 when there is none.
        """
        state = self.watcher.state
        if state.model is None:
            retry = max(1, round(self.settings.poll_seconds))
            raise ServiceError(503, "not_ready", str(state.problem), {"Retry-After": str(retry)})
        return state.model

    async def classify_one(self, request: Request, model: Predictor) -> tuple[Classified, float]:
        """Classify the one image of a request.

        Returns:
            The image with its answer, and the seconds from the request's head to the end of its
            body.

        Raises:
            ImageError: the image cannot be used.
            ServiceError: the request cannot be read, or answered in time.
            ClientDisconnect: the client has left.
        """
        [image] = await upload.read_images(request, 1)
        read_seconds = time.monotonic() - request.state.started
        [result] = await self.classify(request, model, [image])
        if isinstance(result, ImageError):
            raise result
        return result, read_seconds

    async def classify(
        self, request: Request, model: Predictor, images: list[bytes]
    ) -> list[Classified | ImageError]:
        """Classify images, in their order, for as long as the client waits.

        Args:
            request: whose body has been read.
            model: that answers all of them.
            images: JPEG, PNG or DICOM files.

        Raises:
            ServiceError: 504 when there is no time left.
            ClientDisconnect: the client has left; its images are not computed.
        """
        deadline = request.state.started + self.settings.deadline_seconds
        # After the body, the only message that can still arrive is that the client has left.
        left = asyncio.ensure_future(request.receive())
        results = asyncio.ensure_future(self.classifier.classify(model, images, deadline))
        try:
            await asyncio.wait({left, results}, return_when=asyncio.FIRST_COMPLETED)
            if not results.done():
                raise ClientDisconnect
            return await results
        finally:
            left.cancel()
            results.cancel()

    def classification(self, model: Predictor, image: Classified) -> Classification:
        """The part of an answer that is about one image."""
        verdict, repaired = image.answer.verdict, image.repaired
        reasons = [] if verdict is None else verdict.reasons
        return Classification(
            **self._reading(model, image.answer.probabilities),
            accepted=None if verdict is None else verdict.accepted,
            reasons=reasons,
            message=gate.explain(reasons) or None,
            repaired=repaired
            and Repaired(
                **self._reading(model, repaired.answer.probabilities),
                repair=repaired.repair,
                image=None,
            ),
        )

    def _reading(self, model: Predictor, probabilities: npt.NDArray[np.float32]) -> dict[str, Any]:
        """The fields of :class:`schemas.Reading`."""
        classes = model.record.classes
        probs: list[float] = probabilities.tolist()
        pred = int(np.argmax(probs))
        return {
            "pred": pred,
            "label": classes[pred],
            "probs": probs,
            "probabilities": dict(zip(classes, probs, strict=True)),
            "uncertain": self.classifier.uncertain(probabilities),
        }


async def _of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(_of)]
"""A parameter of this type of a route receives the service of its application."""


def _limiter(settings: Settings, metrics: Metrics) -> Limiter | None:
    if settings.rate_limit is None:
        return None
    storage = settings.rate_limit_storage
    redis = None if storage is None else storage.get_secret_value()
    return Limiter(settings.rate_limit, redis, metrics)


def _load(directory: Path, settings: Settings) -> Predictor:
    model = Predictor(
        directory,
        settings.device,
        settings.threads,
        settings.precision == "int8",
        settings.max_batch,
    )
    if settings.gate == "reject" and model.gate is None:
        raise BundleError(
            f"{directory} has no gate, and CXR_GATE=reject needs one: materialise the model again, "
            "or set CXR_GATE=flag"
        )
    return model
