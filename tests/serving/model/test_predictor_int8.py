"""When 8-bit integers compute, and when they do not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from spoiling import IMAGES, Edit, decided, edit_weights, in_order, without

from cxr_assets.learning import onnx
from cxr_serving.model.bundle import ONNX_FILE
from cxr_serving.model.predictor import Predictor

PublishBundle = Callable[..., Path]
INT8 = {"difference": 0.01, "macro_f1": 0.5, "macro_f1_drop": 0.0, "accepted": True}


def test_int8_serves_where_it_is_requested_and_was_accepted(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    directory = publish_bundle(tmp_path, seed=1, finish=in_order(decided, onnx.quantise), int8=INT8)
    exact, rounded = Predictor(directory), Predictor(directory, int8=True)
    assert (exact.runtime, rounded.runtime) == ("onnx", "onnx-int8")
    assert rounded.warning is None
    together = rounded.predict(IMAGES)
    assert 0 < np.abs(together - exact.predict(IMAGES)).max() < 0.05
    alone = np.concatenate([rounded.predict(image[np.newaxis]) for image in IMAGES])
    np.testing.assert_array_equal(together, alone)
    expected, cam = exact.answer(IMAGES)[1], rounded.answer(IMAGES)[1]
    assert expected is not None
    assert expected.max() > 1
    assert 0 < np.abs(cam - expected).max() < 0.05


@pytest.mark.parametrize(
    ("finish", "int8", "runtime"),
    [
        (lambda directory: None, None, "onnx"),
        (lambda directory: None, INT8 | {"accepted": False}, "onnx"),
        (without(ONNX_FILE), None, "torch"),
    ],
    ids=["none", "not accepted", "no onnx"],
)
def test_full_precision_serves_where_int8_cannot(
    tmp_path: Path, publish_bundle: PublishBundle, finish: Edit, int8: object, runtime: str
) -> None:
    predictor = Predictor(publish_bundle(tmp_path, seed=1, finish=finish, int8=int8), int8=True)
    assert predictor.runtime == runtime
    assert predictor.warning is not None
    assert "int8 was requested" in predictor.warning


def test_full_precision_serves_where_int8_answers_differently_on_this_machine(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    def another(directory: Path) -> None:
        decided(directory)
        exact = (directory / ONNX_FILE).read_bytes()
        edit_weights(lambda tensors: tensors["classifier.weight"].neg_())(directory)
        onnx.write(directory, flip_averaging=False)
        onnx.quantise(directory)
        (directory / ONNX_FILE).write_bytes(exact)

    predictor = Predictor(publish_bundle(tmp_path, seed=1, finish=another, int8=INT8), int8=True)
    assert predictor.runtime == "onnx"
    assert predictor.warning is not None
    assert "on this machine it answers the reference images differently" in predictor.warning
