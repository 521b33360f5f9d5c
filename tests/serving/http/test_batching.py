"""The queue before the network, with a model that computes on command."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cxr_serving.http.batching import Batcher
from cxr_serving.http.errors import ServiceError
from cxr_serving.http.metrics import Metrics
from cxr_serving.model.predictor import Answers
from cxr_serving.model.preprocessing import Decoded


class Model:
    """Answers each image with its first grey and itself; while ``gate`` is closed, it computes."""

    max_batch = 4

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[int]] = []

    def answer(self, images: np.ndarray, colour: list[float]) -> Answers:
        self.batches.append(images[:, 0, 0].tolist())
        assert self.gate.wait(30)
        greys = images.astype(np.float32)
        return Answers(greys[:, 0, :1], greys[:, np.newaxis], None)


def image(grey: int) -> Decoded:
    return Decoded(np.full((2, 2), grey, np.uint8), 0.0)


def soon() -> float:
    return time.monotonic() + 30


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[tuple[Batcher, Metrics]]:
    metrics = Metrics()
    settings = {
        "passes": 1,
        "max_delay": 0.0,
        "max_queue": 8,
        "deadline_seconds": 30.0,
    } | options
    batcher = Batcher(**settings, metrics=metrics)
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher, metrics
    finally:
        task.cancel()
        batcher.close()


async def until(met: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not met():
            await asyncio.sleep(0)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise LookupError(name)


async def rejected(asking: Awaitable[object]) -> tuple[int, str]:
    with pytest.raises(ServiceError) as caught:
        await asking
    return caught.value.status, caught.value.code


def test_images_that_arrive_during_a_pass_share_the_next_one_in_order() -> None:
    async def scenario() -> None:
        async with running() as (batcher, metrics):
            model = Model()
            model.gate.clear()
            first = asyncio.create_task(batcher.submit(model, image(0), soon()))
            await until(lambda: model.batches)
            rest = [
                asyncio.create_task(batcher.submit(model, image(n), soon())) for n in range(1, 7)
            ]
            await until(lambda: value(metrics, "cxr_queue_images") == 6)
            model.gate.set()
            answers = await asyncio.gather(first, *rest)
            assert model.batches == [[0], [1, 2, 3, 4], [5, 6]]
            assert [answer.probabilities[0] for answer in answers] == list(range(7))
            assert [answer.cam[0, 1, 1] for answer in answers] == list(range(7))
            assert [answer.images for answer in answers] == [1, 4, 4, 4, 4, 2, 2]
            assert value(metrics, "cxr_batch_images_sum") == 7
            assert value(metrics, "cxr_queue_images") == 0

    asyncio.run(scenario())


def test_a_pass_begins_when_another_one_ends_and_does_not_wait_for_the_rest() -> None:
    async def scenario() -> None:
        async with running(passes=2) as (batcher, _):
            slow, quick = Model(), Model()
            slow.gate.clear()
            long = asyncio.create_task(batcher.submit(slow, image(0), soon()))
            await until(lambda: slow.batches)
            for n in (1, 2, 3):  # each would wait for ever
                assert (await batcher.submit(quick, image(n), soon())).probabilities[0] == n
            assert not long.done()
            slow.gate.set()
            assert (await long).probabilities[0] == 0

    asyncio.run(scenario())


def test_nothing_waits_for_an_image_being_decoded_that_could_not_share_its_pass() -> None:
    async def scenario() -> None:
        async with running(max_delay=30.0) as (batcher, _):
            model = Model()
            model.max_batch = 1
            with batcher.decoding():
                async with asyncio.timeout(10):
                    assert (await batcher.submit(model, image(1), soon())).images == 1

    asyncio.run(scenario())


def test_idle_service_waits_only_for_images_that_are_being_decoded() -> None:
    async def scenario() -> None:
        async with running(max_delay=30.0) as (batcher, _):
            model = Model()
            # Were it to wait for others, this would take the delay.
            async with asyncio.timeout(10):
                assert (await batcher.submit(model, image(1), soon())).images == 1
            with batcher.decoding():
                early = asyncio.create_task(batcher.submit(model, image(2), soon()))
                for _ in range(20):
                    await asyncio.sleep(0)
                assert model.batches == [[1]]
            late = asyncio.create_task(batcher.submit(model, image(3), soon()))
            await asyncio.gather(early, late)
            assert [n for batch in model.batches for n in batch] == [1, 2, 3]

        async with running(max_delay=0.01) as (batcher, _):
            with batcher.decoding():  # and not for longer than the delay
                assert (await batcher.submit(model, image(4), soon())).images == 1

    asyncio.run(scenario())


def test_batch_has_one_model_and_each_image_the_model_it_was_decoded_for() -> None:
    async def scenario() -> None:
        async with running() as (batcher, metrics):
            old, new = Model(), Model()
            old.gate.clear()
            tasks = [asyncio.create_task(batcher.submit(old, image(0), soon()))]
            await until(lambda: old.batches)
            for n, model in ((1, old), (2, new), (3, new), (4, old)):
                tasks.append(asyncio.create_task(batcher.submit(model, image(n), soon())))
            await until(lambda: value(metrics, "cxr_queue_images") == 4)
            old.gate.set()
            await asyncio.gather(*tasks)
            assert old.batches == [[0], [1], [4]]
            assert new.batches == [[2, 3]]

    asyncio.run(scenario())


def test_image_that_is_late_is_answered_504_and_not_computed() -> None:
    async def scenario() -> None:
        async with running() as (batcher, metrics):
            model = Model()
            model.gate.clear()
            first = asyncio.create_task(batcher.submit(model, image(0), soon()))
            await until(lambda: model.batches)
            waiting = batcher.submit(model, image(1), time.monotonic() + 0.05)
            assert await rejected(waiting) == (504, "deadline_exceeded")
            assert await rejected(batcher.submit(model, image(2), 0.0)) == (
                504,
                "deadline_exceeded",
            )
            model.gate.set()
            await first
            assert (await batcher.submit(model, image(3), soon())).probabilities[0] == 3
            assert model.batches == [[0], [3]]
            assert value(metrics, "cxr_rejections_total", reason="deadline") == 2

    asyncio.run(scenario())


def test_full_queue_is_429_and_says_when_to_retry() -> None:
    async def scenario() -> None:
        async with running() as (batcher, metrics):
            with batcher.admitted(7):
                with (
                    batcher.admitted(1),
                    pytest.raises(ServiceError) as caught,
                    batcher.admitted(1),
                ):
                    pass
                assert (caught.value.status, caught.value.code) == (429, "queue_full")
                assert int((caught.value.headers or {})["Retry-After"]) >= 1
                with batcher.admitted(1):
                    pass
            with batcher.admitted(8):
                pass
            assert value(metrics, "cxr_rejections_total", reason="queue_full") == 1

    asyncio.run(scenario())


def test_failing_model_fails_its_own_batch_only() -> None:
    class Broken(Model):
        def answer(self, images: np.ndarray, colour: list[float]) -> Answers:
            raise RuntimeError("broken")

    async def scenario() -> None:
        async with running() as (batcher, _):
            with pytest.raises(RuntimeError, match="broken"):
                await batcher.submit(Broken(), image(1), soon())
            assert (await batcher.submit(Model(), image(2), soon())).images == 1

    asyncio.run(scenario())


async def stalled(batcher: Batcher, seconds: float) -> Model:
    """A model whose last pass took so long."""
    model = Model()
    model.gate.clear()
    answer = asyncio.create_task(batcher.submit(model, image(0), soon()))
    await until(lambda: model.batches)
    end = time.monotonic() + seconds
    await until(lambda: time.monotonic() > end)
    model.gate.set()
    await answer
    return model


def test_a_stall_does_not_set_the_pace_for_ever() -> None:
    async def scenario() -> None:
        async with running() as (batcher, _):
            model = await stalled(batcher, seconds=1)
            model.max_batch = 1
            # Each has less time than the last pass took; all are answered none the less.
            late = [batcher.submit(model, image(n), time.monotonic() + 0.9) for n in (1, 2, 3)]
            answers = await asyncio.gather(*late)
            assert [answer.probabilities[0] for answer in answers] == [1, 2, 3]

    asyncio.run(scenario())


def test_retry_after_is_at_most_the_deadline_of_those_before() -> None:
    async def scenario() -> None:
        async with running(deadline_seconds=1.0) as (batcher, _):
            await stalled(batcher, seconds=0.5)
            with batcher.admitted(8), pytest.raises(ServiceError) as caught, batcher.admitted(1):
                pass
            assert (caught.value.headers or {})["Retry-After"] == "1"

    asyncio.run(scenario())
