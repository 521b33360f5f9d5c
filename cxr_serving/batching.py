"""Films of many requests become one forward pass."""

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

from cxr_serving.errors import ServiceError
from cxr_serving.metrics import Metrics
from cxr_serving.predictor import Predictor
from cxr_serving.progress import Progress

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What became of one film.

    Attributes:
        probabilities: float32 [classes], calibrated.
        heat: float32 [classes, h, w], where the film speaks for each class; None of a network that
            is not explained.
        queue_seconds: it waited for its forward pass.
        inference_seconds: of the forward pass.
        films: in that forward pass.
    """

    probabilities: npt.NDArray[np.float32]
    heat: npt.NDArray[np.float32] | None
    queue_seconds: float
    inference_seconds: float
    films: int


@dataclass(eq=False)
class _Film:
    model: Predictor
    pixels: npt.NDArray[np.uint8]
    deadline: float
    answer: "asyncio.Future[Answer]"
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """A bounded queue before one thread that computes; all else runs in the event loop.

    While a forward pass runs, films gather; the next one takes what is there, first come, first
    served. An idle service computes a film at once: it only ever waits, and no longer than
    ``max_delay`` seconds, for films that are being decoded at that moment.

    Attributes:
        progress: whether images are answered.
    """

    def __init__(
        self,
        max_batch: int,
        max_delay: float,
        max_queue: int,
        deadline_seconds: float,
        metrics: Metrics,
    ) -> None:
        self.progress = Progress(deadline_seconds)
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._max_queue = max_queue
        self._metrics = metrics
        self._worker = ThreadPoolExecutor(1, "inference")
        self._queue: deque[_Film] = deque()
        self._changed = asyncio.Event()
        self._admitted = 0
        self._decoding = 0
        # Seconds that an image took in the last pass: an estimate of which deadlines can be met.
        self._pace = 0.0

    async def run(self) -> None:
        """Compute what comes, until cancelled."""
        while True:
            await self._gather()
            batch = self._take()
            if batch:
                await self._compute(batch)

    def close(self) -> None:
        """Stop the thread."""
        self._worker.shutdown()

    @contextmanager
    def admitted(self, films: int) -> Iterator[None]:
        """Room in the house for some films, before they are read.

        Raises:
            ServiceError: 429 when there is none.
        """
        if self._admitted + films > self._max_queue:
            self._metrics.rejections.labels("queue_full").inc()
            # None of those before takes longer than its deadline, whatever the last pass took.
            wait = min(self._admitted * self._pace, self.progress.seconds)
            raise ServiceError(
                429,
                "queue_full",
                f"{self._admitted} films are in the house, {self._max_queue} have room: ask again "
                "later",
                {"Retry-After": str(max(1, math.ceil(wait)))},
            )
        self._admitted += films
        try:
            yield
        finally:
            self._admitted -= films

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Around the decoding of a film that will be submitted next."""
        self._decoding += 1
        try:
            yield
        finally:
            self._decoding -= 1
            self._changed.set()

    async def submit(
        self, model: Predictor, pixels: npt.NDArray[np.uint8], deadline: float
    ) -> Answer:
        """Have one film classified.

        Args:
            model: that answers, also when another one has replaced it meanwhile.
            pixels: uint8 [size, size], decoded for that model.
            deadline: of ``time.monotonic()``.

        Raises:
            ServiceError: 504 when it cannot be answered in time; it is not computed then.
        """
        film = _Film(model, pixels, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(film)
        self._metrics.queue_films.set(len(self._queue))
        self._changed.set()
        return await self.within(deadline, film.answer)

    async def within(self, deadline: float, answer: "asyncio.Future[T]") -> T:
        """The result, where it comes before ``deadline``; it is cancelled otherwise.

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
            "no answer in time: the service is overloaded, ask again later",
        )

    async def _gather(self) -> None:
        while not self._queue:
            self._changed.clear()
            await self._changed.wait()
        closing = self._queue[0].arrived + self._max_delay
        while self._decoding and len(self._queue) < self._max_batch:
            self._changed.clear()
            try:
                async with asyncio.timeout(closing - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Film]:
        now = time.monotonic()
        waiting = []
        for film in self._queue:
            if film.answer.done():  # whoever asked has given up
                continue
            if film.deadline < now:
                film.answer.set_exception(self._late())
            else:
                waiting.append(film)
        in_time = [film for film in waiting if film.deadline >= now + self._pace]
        if waiting and not in_time:
            # All are late if the last pass is any guide, but it may have been a stall. There is
            # nothing better to compute than the one with the most time, which renews the estimate.
            batch = [max(waiting, key=lambda film: film.deadline)]
        else:
            for film in waiting:
                if film.deadline < now + self._pace:
                    film.answer.set_exception(self._late())
            of_one_model = takewhile(lambda film: film.model is in_time[0].model, in_time)
            batch = list(islice(of_one_model, self._max_batch))
        self._queue = deque(
            film for film in waiting if not film.answer.done() and film not in batch
        )
        self._metrics.queue_films.set(len(self._queue))
        return batch

    async def _compute(self, batch: list[_Film]) -> None:
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            films = np.stack([film.pixels for film in batch])
            rows, heat = await loop.run_in_executor(self._worker, batch[0].model.answer, films)
        except Exception as error:  # noqa: BLE001
            for film in batch:
                if not film.answer.done():
                    film.answer.set_exception(error)
            return
        seconds = time.monotonic() - started
        self._pace = seconds / len(batch)
        self._metrics.inference_seconds.observe(seconds)
        self._metrics.batch_films.observe(len(batch))
        for index, film in enumerate(batch):
            waited = started - film.arrived
            self._metrics.queue_seconds.observe(waited)
            if not film.answer.done():
                film.answer.set_result(
                    Answer(
                        probabilities=rows[index],
                        heat=None if heat is None else heat[index],
                        queue_seconds=waited,
                        inference_seconds=seconds,
                        films=len(batch),
                    )
                )
