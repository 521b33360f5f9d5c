"""Queues the images of many requests before the forward passes."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cxr_serving.http.errors import ServiceError
from cxr_serving.http.metrics import Metrics
from cxr_serving.http.progress import Progress
from cxr_serving.model.gate import Verdict
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import Decoded

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """The answer for one image.

    Attributes:
        probabilities: float32 [classes], calibrated.
        cam: float32 [classes, h, w], the class activation maps; None for a network
            without them.
        verdict: of the model's gate; None for a model without one.
        queue_seconds: it was queued.
        inference_seconds: of the forward pass, and of judging its images.
        images: in that forward pass, of all requests.
    """

    probabilities: npt.NDArray[np.float32]
    cam: npt.NDArray[np.float32] | None
    verdict: Verdict | None
    queue_seconds: float
    inference_seconds: float
    images: int


@dataclass(eq=False)
class _Image:
    model: Predictor
    decoded: Decoded
    deadline: float
    answer: "asyncio.Future[Answer]"
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """A bounded queue before threads that compute; everything else runs in the event loop.

    First come, first served: of those that wait, each pass takes as many as its model computes
    together. An idle service computes an image at once: where a pass has room for more, it waits,
    for at most ``max_delay`` seconds, only while other images are being decoded.

    Attributes:
        progress: knows whether images are still being answered.
    """

    def __init__(
        self,
        passes: int,
        max_delay: float,
        max_queue: int,
        deadline_seconds: float,
        metrics: Metrics,
    ) -> None:
        """Prepare at most ``passes`` at the same time; :meth:`run` computes."""
        self.progress = Progress(deadline_seconds)
        self._passes = passes
        self._max_delay = max_delay
        self._max_queue = max_queue
        self._metrics = metrics
        self._workers = ThreadPoolExecutor(passes, "inference")
        self._queue: deque[_Image] = deque()
        self._changed = asyncio.Event()
        self._admitted = 0
        self._decoding = 0
        # Seconds per image of the last pass: estimates which deadlines can be met.
        self._pace = 0.0

    async def run(self) -> None:
        """Compute queued images until cancelled."""
        await asyncio.gather(*(self._compute_in_turn() for _ in range(self._passes)))

    def close(self) -> None:
        """Stop the threads."""
        self._workers.shutdown()

    @contextmanager
    def admitted(self, images: int) -> Iterator[None]:
        """Count images as in flight, before they are read.

        Raises:
            ServiceError: 429 when that would exceed ``max_queue``.
        """
        if self._admitted + images > self._max_queue:
            self._metrics.rejections.labels("queue_full").inc()
            # No image in flight takes longer than its deadline, however slow the last pass was.
            wait = min(self._admitted * self._pace / self._passes, self.progress.seconds)
            raise ServiceError(
                429,
                "queue_full",
                f"{self._admitted} images are in flight, of at most {self._max_queue}: try again "
                "later",
                {"Retry-After": str(max(1, math.ceil(wait)))},
            )
        self._admitted += images
        try:
            yield
        finally:
            self._admitted -= images

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Around the decoding of an image that will be submitted next."""
        self._decoding += 1
        try:
            yield
        finally:
            self._decoding -= 1
            self._changed.set()

    async def submit(self, model: Predictor, decoded: Decoded, deadline: float) -> Answer:
        """Classify one image.

        Args:
            model: that answers, even if another one has replaced it since.
            decoded: the image, for that model.
            deadline: of ``time.monotonic()``.

        Raises:
            ServiceError: 504 when it cannot be answered in time; it is not computed then.
        """
        image = _Image(model, decoded, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(image)
        self._metrics.queue_images.set(len(self._queue))
        self._changed.set()
        return await self.within(deadline, image.answer)

    async def within(self, deadline: float, answer: "asyncio.Future[T]") -> T:
        """The result if it arrives before ``deadline``; otherwise it is cancelled.

        Raises:
            ServiceError: 504.
        """
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await answer
        except TimeoutError as error:
            raise self._late() from error

    def _late(self) -> ServiceError:
        self._metrics.rejections.labels("deadline").inc()
        return ServiceError(
            504,
            "deadline_exceeded",
            "no answer in time: the service is overloaded, try again later",
        )

    async def _compute_in_turn(self) -> None:
        while True:
            await self._gather()
            batch = self._take()
            if batch:
                await self._compute(batch)

    async def _gather(self) -> None:
        while not self._queue:
            self._changed.clear()
            await self._changed.wait()
        first = self._queue[0]
        closing = first.arrived + self._max_delay
        while self._decoding and len(self._queue) < first.model.max_batch:
            self._changed.clear()
            try:
                async with asyncio.timeout(closing - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Image]:
        now = time.monotonic()
        waiting = []
        for image in self._queue:
            if image.answer.done():  # the client has given up
                continue
            if image.deadline < now:
                image.answer.set_exception(self._late())
            else:
                waiting.append(image)
        in_time = [image for image in waiting if image.deadline >= now + self._pace]
        if waiting and not in_time:
            # All are late if the last pass is any guide, but it may have been a stall. There is
            # nothing better to compute than the one with the most time, which renews the estimate.
            in_time = [max(waiting, key=lambda image: image.deadline)]
        else:
            for image in waiting:
                if image.deadline < now + self._pace:
                    image.answer.set_exception(self._late())
        of_one_model = takewhile(lambda image: image.model is in_time[0].model, in_time)
        batch = list(islice(of_one_model, in_time[0].model.max_batch if in_time else 0))
        self._queue = deque(
            image for image in waiting if not image.answer.done() and image not in batch
        )
        self._metrics.queue_images.set(len(self._queue))
        return batch

    async def _compute(self, batch: list[_Image]) -> None:
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            images = np.stack([image.decoded.pixels for image in batch])
            colour = [image.decoded.colour for image in batch]
            rows, cam, verdicts = await loop.run_in_executor(
                self._workers, batch[0].model.answer, images, colour
            )
        except Exception as error:  # noqa: BLE001
            for image in batch:
                if not image.answer.done():
                    image.answer.set_exception(error)
            return
        seconds = time.monotonic() - started
        self._pace = seconds / len(batch)
        self._metrics.inference_seconds.observe(seconds)
        self._metrics.batch_images.observe(len(batch))
        for index, image in enumerate(batch):
            waited = started - image.arrived
            self._metrics.queue_seconds.observe(waited)
            if not image.answer.done():
                image.answer.set_result(
                    Answer(
                        probabilities=rows[index],
                        cam=None if cam is None else cam[index],
                        verdict=None if verdicts is None else verdicts[index],
                        queue_seconds=waited,
                        inference_seconds=seconds,
                        images=len(batch),
                    )
                )
