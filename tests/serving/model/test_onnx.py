import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession
from spoiling import IMAGES

from cxr_serving.model.predictor import Predictor

PublishBundle = Callable[..., Path]


def test_onnx_runtime_computes_one_by_one_what_is_the_same_in_every_batch(
    tmp_path: Path, publish_bundle: PublishBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    run = InferenceSession.run

    def counted(session: InferenceSession, names: object, given: dict[str, np.ndarray]) -> object:
        sizes.append(len(given["pixel_values"]))
        return run(session, names, given)

    monkeypatch.setattr(InferenceSession, "run", counted)
    predictor = Predictor(publish_bundle(tmp_path, seed=1), threads=2)
    together = predictor.answer(IMAGES)
    assert set(sizes) == {1}
    for index in range(len(IMAGES)):
        alone = predictor.answer(IMAGES[index : index + 1])
        np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[index])
        np.testing.assert_array_equal(alone.cam[0], together.cam[index])


def test_two_threads_compute_two_images_at_the_same_time(
    tmp_path: Path, publish_bundle: PublishBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(publish_bundle(tmp_path, seed=1), threads=2)
    both = threading.Barrier(2, timeout=30)  # broken where one image waits for the other
    run = InferenceSession.run

    def met(session: InferenceSession, names: object, given: dict[str, np.ndarray]) -> object:
        both.wait()
        return run(session, names, given)

    monkeypatch.setattr(InferenceSession, "run", met)
    assert len(predictor.predict(IMAGES[:4])) == 4
