"""From the bytes of images to calibrated answers, for many requests at once."""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from opentelemetry import trace

from cxr_serving.http.batching import Answer, Batcher
from cxr_serving.http.drift import Drift
from cxr_serving.http.errors import ImageRejected, ServiceError
from cxr_serving.http.metrics import Metrics
from cxr_serving.images.dicom import is_dicom
from cxr_serving.images.reader import ImageReader
from cxr_serving.model import gate
from cxr_serving.model.gate import Repair
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import Decoded, ImageError

_tracer = trace.get_tracer("cxr_serving")


@dataclass(frozen=True)
class Repaired:
    """A repaired copy of an image that the gate rejects, and the answer for it.

    Attributes:
        repair: what was done to it.
        pixels: uint8 [size, size].
        answer: by the same model, whose gate accepts it.
    """

    repair: Repair
    pixels: npt.NDArray[np.uint8]
    answer: Answer


@dataclass(frozen=True)
class Classified:
    """An image and its answer.

    Attributes:
        pixels: uint8 [size, size], as the network sees it.
        decode_seconds: decoding it, including the wait for a thread.
        answer: by the model.
        repaired: of an image that the gate rejects, if a repair makes it accept it.
    """

    pixels: npt.NDArray[np.uint8]
    decode_seconds: float
    answer: Answer
    repaired: Repaired | None = None

    @property
    def accepted(self) -> bool:
        """Whether the gate accepts it, or there is none."""
        return self.answer.verdict is None or self.answer.verdict.accepted

    @property
    def answers(self) -> list[Answer]:
        """All that were computed for it."""
        return [self.answer, *([self.repaired.answer] if self.repaired else [])]


class Classifier:
    """Decodes images in its own threads and passes them to the batcher.

    A model's gate judges in the batcher's thread, after the forward pass. Only an image that it
    rejects, and that may be rotated or inverted, is computed a second time, repaired.
    """

    def __init__(
        self,
        batcher: Batcher,
        threads: int,
        confidence: float,
        gate: Literal["flag", "reject"],
        metrics: Metrics,
    ) -> None:
        self._batcher = batcher
        self._confidence = confidence
        self._rejects = gate == "reject"
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

    def start(self, after: threading.Event) -> None:
        """Try out, ahead of the first image, whether the process that decodes DICOM starts.

        Args:
            after: set when the first model no longer needs the processors.
        """

        def try_out() -> None:
            after.wait()
            self._reader.try_dicom()

        self._dicom_decoder.submit(try_out)

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

    def rejection(self, image: Classified) -> ImageRejected | None:
        """The error that answers an image instead of its prediction, if the settings want one."""
        verdict = image.answer.verdict
        if not self._rejects or verdict is None or verdict.accepted:
            return None
        return ImageRejected(verdict.reasons)

    def count(self, model: Predictor, image: Classified) -> None:
        """Count an image: what the gate says, and if it accepts it the answer and drift.

        The class and the confidence of a rejected image mean nothing. Drift compares images with
        those of validation, of which the gate accepts nearly all: other pictures would move it, or
        hide that the radiographs do.
        """
        verdict = image.answer.verdict
        if verdict is not None:
            self._metrics.gate_images.labels(str(verdict.accepted).lower()).inc()
            for reason in verdict.reasons:
                self._metrics.gate_reasons.labels(reason).inc()
        if not image.accepted:
            return
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
            found = await self._batcher.within(
                deadline, loop.run_in_executor(pool, self._decode, model, image)
            )
        if isinstance(found, ImageError):
            return found
        decoded = time.monotonic()
        with _tracer.start_as_current_span("infer"):
            answer = await self._batcher.submit(model, found, deadline)
        repaired = await self._repaired(model, found, answer, deadline)
        return Classified(found.pixels, decoded - started, answer, repaired)

    async def _repaired(
        self, model: Predictor, image: Decoded, answer: Answer, deadline: float
    ) -> Repaired | None:
        repair = None if answer.verdict is None else answer.verdict.repair
        if repair is None or self._rejects:
            return None
        pixels = gate.repaired(image.pixels, repair)
        with _tracer.start_as_current_span("infer repaired"):
            try:
                other = await self._batcher.submit(model, image._replace(pixels=pixels), deadline)
            except ServiceError:  # no time is left, but for the answer that there is
                return None
        accepted = other.verdict is not None and other.verdict.accepted
        return Repaired(repair, pixels, other) if accepted else None

    def _decode(self, model: Predictor, image: bytes) -> Decoded | ImageError:
        with self._metrics.decode_seconds.time():
            try:
                return self._reader.read(image, model.preprocessing)
            except ImageError as error:
                # The same without its traceback, whose frames hold all pixels of the image until
                # the garbage collector passes.
                return type(error)(*error.args)
