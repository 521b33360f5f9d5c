"""What counts as uncertain, and what is counted."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cxr_serving.http.batching import Answer
from cxr_serving.http.classifier import Classified
from cxr_serving.http.errors import ServiceError
from cxr_serving.http.service import Service
from cxr_serving.http.settings import Settings
from cxr_serving.model.gate import Gate, Verdict
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import (
    Decoded,
    ImageError,
    UndecodableImage,
    UnsupportedImage,
)


@pytest.fixture
def service(publish_bundle: Callable[..., Path], tmp_path: Path) -> Iterator[Service]:
    publish_bundle(tmp_path, seed=1)
    service = Service(Settings(data_root=tmp_path, threads=1, confidence=0.5))
    service.watcher.poll()
    yield service
    service.classifier.close()
    service.batcher.close()


def classify(service: Service, images: list[bytes]) -> list[Classified | ImageError]:
    async def computing() -> list[Classified | ImageError]:
        running = asyncio.create_task(service.batcher.run())
        deadline = asyncio.get_running_loop().time() + 60
        try:
            return await service.classifier.classify(service.model(), images, deadline)
        finally:
            running.cancel()

    return asyncio.run(computing())


def test_answer_below_the_confidence_is_uncertain(service: Service) -> None:
    uncertain = service.classifier.uncertain
    assert uncertain(np.array([0.49, 0.3, 0.21], np.float32))
    assert not uncertain(np.array([0.5, 0.3, 0.2], np.float32))


def test_images_keep_their_order_and_a_bad_one_its_error(
    service: Service, image: bytes, encode_image: Callable[..., bytes]
) -> None:
    other = encode_image(Image.linear_gradient("L"), "PNG")
    model = service.model()
    first, bad, last = classify(service, [image, b"no image", other])
    assert isinstance(bad, UnsupportedImage)
    for answered, sent in ((first, image), (last, other)):
        assert isinstance(answered, Classified)
        np.testing.assert_array_equal(answered.pixels, model.preprocessing.decode(sent).pixels)
        [expected] = model.predict(answered.pixels[None])
        np.testing.assert_allclose(answered.answer.probabilities, expected, atol=1e-6)


def test_a_rejected_image_frees_its_pixels_at_once(
    service: Service, encode_image: Callable[..., bytes]
) -> None:
    def in_memory() -> int:
        return sum(issubclass(type(thing), Image.Image) for thing in gc.get_objects())

    black = encode_image(Image.new("L", (64, 64)), "PNG")
    broken = encode_image(Image.linear_gradient("L"), "PNG")[:-40]
    gc.collect()
    before = in_memory()
    gc.disable()  # it would free them some time
    try:
        results = classify(service, [black, broken])
        assert in_memory() == before
    finally:
        gc.enable()
    assert [type(result) for result in results] == [UndecodableImage, UndecodableImage]


def test_image_is_answered_even_if_no_time_is_left_for_the_repaired_one(
    service: Service, rotated: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, submitted = service.batcher.submit, []

    async def once(model: Predictor, image: Decoded, deadline: float) -> Answer:
        submitted.append(deadline)
        if len(submitted) > 1:
            raise ServiceError(504, "deadline_exceeded", "late")
        return await submit(model, image, deadline)

    monkeypatch.setattr(service.batcher, "submit", once)
    [answered] = classify(service, [rotated])
    assert isinstance(answered, Classified)
    assert not answered.accepted
    assert answered.repaired is None
    assert len(submitted) == 2
    assert submitted[0] == submitted[1]


def test_gate_judges_in_the_thread_of_the_network(
    service: Service, rotated: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, threads = Gate.judge, []

    def judging(self: Gate, *given: Any) -> list[Verdict]:
        threads.append(threading.current_thread().name)
        return judge(self, *given)

    monkeypatch.setattr(Gate, "judge", judging)
    [answered] = classify(service, [rotated])
    assert isinstance(answered, Classified)
    assert answered.repaired is not None
    assert threads == ["inference_0", "inference_0"]
