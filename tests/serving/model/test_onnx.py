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


def before_each_pass(
    monkeypatch: pytest.MonkeyPatch, do: Callable[[dict[str, np.ndarray]], object]
) -> None:
    """Call ``do`` with the input of each pass, in the thread that starts it."""
    for name in ("run", "run_async"):
        start = getattr(InferenceSession, name)

        def starting(
            session: InferenceSession,
            outputs: object,
            given: dict[str, np.ndarray],
            *more: object,
            start: Callable[..., object] = start,
        ) -> object:
            do(given)
            return start(session, outputs, given, *more)

        monkeypatch.setattr(InferenceSession, name, starting)


def test_onnx_runtime_computes_one_by_one_what_is_the_same_in_every_batch(
    tmp_path: Path, publish_bundle: PublishBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def count(given: dict[str, np.ndarray]) -> None:
        sizes.append(len(given["pixel_values"]))

    before_each_pass(monkeypatch, count)
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
    before_each_pass(monkeypatch, lambda given: both.wait())
    assert len(predictor.predict(IMAGES[:4])) == 4


def test_an_error_of_the_runtime_is_raised(tmp_path: Path, publish_bundle: PublishBundle) -> None:
    predictor = Predictor(publish_bundle(tmp_path, seed=1), threads=2)
    for number in (1, 4):  # alone, and several at the same time
        with pytest.raises(InvalidArgument, match="invalid dimensions for input: pixel_values"):
            predictor.predict(np.zeros((number, 5, 5), np.uint8))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_answer(
    tmp_path: Path, publish_bundle: PublishBundle, threads: int
) -> None:
    bundle = publish_bundle(tmp_path, seed=1)
    some, others = (Predictor(bundle, threads=n).answer(IMAGES) for n in (2, threads))
    np.testing.assert_array_equal(some.probabilities, others.probabilities)
    np.testing.assert_array_equal(some.cam, others.cam)
