import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from spoiling import IMAGES

from cxr_serving.model.predictor import Predictor

PublishBundle = Callable[..., Path]


def test_onnx_runtime_computes_one_by_one_what_is_the_same_in_every_batch(
    tmp_path: Path, publish_bundle: PublishBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    run = InferenceSession.run_async

    def counted(
        session: InferenceSession, names: object, given: dict[str, np.ndarray], *more: object
    ) -> None:
        sizes.append(len(given["pixel_values"]))
        run(session, names, given, *more)

    monkeypatch.setattr(InferenceSession, "run_async", counted)
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
    run = InferenceSession.run_async

    def met(session: InferenceSession, *given: object) -> None:
        both.wait()
        run(session, *given)

    monkeypatch.setattr(InferenceSession, "run_async", met)
    assert len(predictor.predict(IMAGES[:4])) == 4


def test_an_error_of_the_runtime_is_raised(tmp_path: Path, publish_bundle: PublishBundle) -> None:
    predictor = Predictor(publish_bundle(tmp_path, seed=1), threads=2)
    with pytest.raises(InvalidArgument, match="Got invalid dimensions for input: pixel_values"):
        predictor.predict(np.zeros((1, 5, 5), np.uint8))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_answer(
    tmp_path: Path, publish_bundle: PublishBundle, threads: int
) -> None:
    bundle = publish_bundle(tmp_path, seed=1)
    some, others = (Predictor(bundle, threads=n).answer(IMAGES) for n in (2, threads))
    np.testing.assert_array_equal(some.probabilities, others.probabilities)
    np.testing.assert_array_equal(some.cam, others.cam)
