import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from spoiling import (
    IMAGES,
    WEIGHTS,
    Edit,
    answer,
    decided,
    in_order,
    without,
)
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.image_utils import load_image

from cxr_assets.learning import onnx
from cxr_serving.model import memory
from cxr_serving.model.bundle import DISTRIBUTION_FILE, ONNX_FILE, BundleError
from cxr_serving.model.predictor import Predictor

PublishBundle = Callable[..., Path]


def test_probabilities_are_those_of_transformers(
    tmp_path: Path, publish_bundle: PublishBundle, image: bytes
) -> None:
    directory = publish_bundle(tmp_path, seed=1)
    (tmp_path / "image.jpeg").write_bytes(image)
    processor = AutoImageProcessor.from_pretrained(directory)
    model = AutoModelForImageClassification.from_pretrained(directory).eval()
    with torch.inference_mode():
        inputs = processor(images=load_image(str(tmp_path / "image.jpeg")), return_tensors="pt")
        expected = model(**inputs).logits.softmax(dim=1).numpy()

    predictor = Predictor(directory)
    actual = predictor.predict(np.stack([predictor.preprocessing.decode(image).pixels]))
    assert actual.shape == (1, 3)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_image_is_answered_the_same_alone_and_in_a_batch(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    predictor = Predictor(publish_bundle(tmp_path, seed=1))
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64), dtype=np.uint8)
    together = predictor.predict(images)
    alone = np.concatenate([predictor.predict(image[np.newaxis]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("flip_averaging", [False, True])
def test_onnx_runtime_and_torch_answer_the_same(
    tmp_path: Path, publish_bundle: PublishBundle, flip_averaging: bool
) -> None:
    def averaged(directory: Path) -> None:
        decided(directory)
        onnx.write(directory, flip_averaging)
        answer(directory)

    record = {"flip_averaging": flip_averaging}
    there = Predictor(publish_bundle(tmp_path / "there", seed=1, finish=averaged, **record))
    edit = in_order(averaged, without(ONNX_FILE))
    gone = Predictor(publish_bundle(tmp_path / "gone", seed=1, finish=edit, **record))
    assert (there.runtime, gone.runtime) == ("onnx", "torch")
    assert (there.warning, gone.warning) == (None, None)
    np.testing.assert_allclose(there.predict(IMAGES), gone.predict(IMAGES), atol=1e-5)


def test_bundle_without_onnx_and_distribution_serves(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    finish = without(ONNX_FILE, DISTRIBUTION_FILE)
    predictor = Predictor(publish_bundle(tmp_path, seed=1, finish=finish))
    assert predictor.distribution is None
    np.testing.assert_allclose(predictor.predict(IMAGES).sum(axis=1), 1, atol=1e-6)


def test_onnx_runtime_answers_without_torch_or_transformers_being_loaded(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    script = """
import sys
from pathlib import Path
from cxr_serving.model.predictor import Predictor
Predictor(Path(sys.argv[1]), threads=1)
print(sorted({"torch", "transformers"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(publish_bundle(tmp_path, seed=1))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_network_in_torch_is_that_of_the_loaded_bundle(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    directory = publish_bundle(tmp_path, seed=1)
    one, two = Predictor(directory), Predictor(directory)
    with torch.inference_mode():
        pixels = one.preprocessing.normalise(torch.tensor(IMAGES))
        expected = one.model(pixels).logits.softmax(dim=1)
    np.testing.assert_allclose(one.predict(IMAGES), expected, atol=1e-5)
    with (directory / WEIGHTS).open("r+b") as file:
        file.truncate(100)
    assert one.model is one.model
    with pytest.raises(BundleError, match=r"model\.safetensors does not match"):
        _ = two.model


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_recorded_kernels_on_a_gpu_answer_the_same_in_batches_of_any_size(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    directory = publish_bundle(tmp_path, seed=1)
    on_cpu, on_gpu = Predictor(directory), Predictor(directory, "cuda")
    assert (on_gpu.runtime, on_gpu.warning) == ("torch", None)
    for images in (IMAGES, IMAGES[:1], IMAGES[1:4], IMAGES[::-1]):
        for ours, expected in zip(on_gpu.answer(images), on_cpu.answer(images), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("finish", [lambda directory: None, without(ONNX_FILE)])
def test_loaded_model_does_not_change_with_its_file(
    tmp_path: Path, publish_bundle: PublishBundle, finish: Edit
) -> None:
    directory = publish_bundle(tmp_path, seed=1, finish=finish)
    predictor = Predictor(directory)
    images = np.zeros((1, 64, 64), np.uint8)
    before = predictor.predict(images)
    for path in directory.iterdir():
        with path.open("r+b") as file:
            file.truncate(100)
    np.testing.assert_array_equal(predictor.predict(images), before)


def test_what_loading_has_freed_is_returned_to_the_system(
    tmp_path: Path, publish_bundle: PublishBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[bool] = []
    monkeypatch.setattr(memory, "return_freed", lambda: returned.append(True))
    Predictor(publish_bundle(tmp_path, seed=1))
    assert returned == [True]
