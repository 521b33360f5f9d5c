"""From the bytes of images to calibrated answers, for many requests at once."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from opentelemetry import trace

from cxr_serving.http.batching import Answer, Batcher
from cxr_serving.http.drift import Drift
from cxr_serving.http.metrics import Metrics
from cxr_serving.images.dicom import is_dicom
from cxr_serving.images.reader import ImageReader
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import Decoded, ImageError

_tracer = trace.get_tracer("cxr_serving")


@dataclass(frozen=True)
class Classified:
    """An image and its answer.

    Attributes:
        pixels: uint8 [size, size], as the network sees it.
        decode_seconds: decoding it, including the wait for a thread.
        answer: by the model.
    """

    pixels: npt.NDArray[np.uint8]
    decode_seconds: float
    answer: Answer


class Classifier:
    """Decodes images in its own threads and passes them to the batcher."""

    def __init__(self, batcher: Batcher, threads: int, confidence: float, metrics: Metrics) -> None:
        self._batcher = batcher
        self._confidence = confidence
        self._metrics = metrics
        self._drift = Drift(metrics)
        self._reader = ImageReader()
        self._decoders = ThreadPoolExecutor(threads, "decoder")
        # One process decodes DICOM: images that wait for it must not block the other threads.
        self._dicom_decoder = ThreadPoolExecutor(1, "dicom")

    @property
    def dicom_problem(self) -> str | None:
        """Why DICOM cannot be read at the moment; None if it can."""
        return self._reader.dicom_problem

    def start(self) -> None:
        """Start the process that decodes DICOM, ahead of the first image."""
        self._dicom_decoder.submit(self._reader.start)

    def close(self) -> None:
        """Stop threads and processes."""
        self._decoders.shutdown()
        self._dicom_decoder.shutdown()
        self._reader.close()

    async def classify(
        self, model: Predictor, images: Sequence[bytes], deadline: float
    ) -> list[Classified | ImageError]:
        """Classify images, in their order; a bad one gets its error.

        Args:
            model: that classifies all of them.
            images: JPEG, PNG or DICOM files.
            deadline: of ``time.monotonic()``.

        Raises:
            ServiceError: 504 when there is no time left.
        """
        return await asyncio.gather(*(self._answer(model, image, deadline) for image in images))

    def uncertain(self, probabilities: npt.NDArray[np.float32]) -> bool:
        """Whether the most probable class is below the confidence of the settings."""
        return bool(probabilities.max() < self._confidence)

    def count(self, model: Predictor, image: Classified) -> None:
        """Count an answered prediction, for the metrics and for drift."""
        probabilities = image.answer.probabilities
        predicted = int(probabilities.argmax())
        self._metrics.predictions.labels(model.record.classes[predicted]).inc()
        self._metrics.confidence.observe(float(probabilities.max()))
        self._metrics.uncertain.inc(self.uncertain(probabilities))
        self._drift.observe(model, image.pixels, predicted)

    async def _answer(
        self, model: Predictor, image: bytes, deadline: float
    ) -> Classified | ImageError:
        with self._batcher.progress.image():
            return await self._classify(model, image, deadline)

    async def _classify(
        self, model: Predictor, image: bytes, deadline: float
    ) -> Classified | ImageError:
        started = time.monotonic()
        with self._batcher.decoding(), _tracer.start_as_current_span("decode"):
            pool = self._dicom_decoder if is_dicom(image) else self._decoders
            loop = asyncio.get_running_loop()
            try:
                found = await self._batcher.within(
                    deadline, loop.run_in_executor(pool, self._decode, model, image)
                )
            except ImageError as error:
                return error
        decoded = time.monotonic()
        with _tracer.start_as_current_span("infer"):
            answer = await self._batcher.submit(model, found, deadline)
        return Classified(found.pixels, decoded - started, answer)

    def _decode(self, model: Predictor, image: bytes) -> Decoded:
        with self._metrics.decode_seconds.time():
            return self._reader.read(image, model.preprocessing)
