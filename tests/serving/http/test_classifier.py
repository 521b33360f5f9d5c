"""What counts as uncertain, and what is counted."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_serving.http.classifier import Classified
from cxr_serving.http.service import Service
from cxr_serving.http.settings import Settings
from cxr_serving.model.preprocessing import UnsupportedImage


@pytest.fixture(scope="module")
def service(
    publish_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("classifier")
    publish_bundle(root, seed=1)
    service = Service(Settings(data_root=root, threads=1, confidence=0.5))
    service.watcher.poll()
    yield service
    service.classifier.close()
    service.batcher.close()


def test_answer_below_the_confidence_is_uncertain(service: Service) -> None:
    uncertain = service.classifier.uncertain
    assert uncertain(np.array([0.49, 0.3, 0.21], np.float32))
    assert not uncertain(np.array([0.5, 0.3, 0.2], np.float32))


def test_images_keep_their_order_and_a_bad_one_its_error(
    service: Service, image: bytes, encode_image: Callable[..., bytes]
) -> None:
    other = encode_image(Image.linear_gradient("L"), "PNG")
    model = service.model()

    async def classify() -> list[object]:
        computing = asyncio.create_task(service.batcher.run())
        deadline = asyncio.get_running_loop().time() + 60
        try:
            return list(
                await service.classifier.classify(model, [image, b"no image", other], deadline)
            )
        finally:
            computing.cancel()

    first, bad, last = asyncio.run(classify())
    assert isinstance(bad, UnsupportedImage)
    for answered, sent in ((first, image), (last, other)):
        assert isinstance(answered, Classified)
        np.testing.assert_array_equal(answered.pixels, model.preprocessing.decode(sent).pixels)
        [expected] = model.predict(answered.pixels[None])
        np.testing.assert_allclose(answered.answer.probabilities, expected, atol=1e-6)
