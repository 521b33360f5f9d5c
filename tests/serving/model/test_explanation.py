from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from transformers import Dinov2Config, Dinov2ForImageClassification

from cxr_assets.learning.reference import Saved
from cxr_serving.model.explanation import grad_cam, overlay
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.reference import Reference

SIZE = 64
CLASSES = ("bacterial_pneumonia", "normal", "viral_pneumonia")


@pytest.fixture(scope="module")
def predictor(
    publish_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Predictor:
    return Predictor(publish_bundle(tmp_path_factory.mktemp("explained"), seed=1))


def explain(predictor: Predictor, images: np.ndarray, classes: list[int]) -> np.ndarray:
    cam = predictor.answer(images)[1]
    assert cam is not None
    return np.stack([grad_cam(cam[n, index], SIZE) for n, index in enumerate(classes)])


def test_map_is_that_of_the_gradients_of_the_last_stage(predictor: Predictor) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), np.uint8)
    classes = [2, 0, 1]
    explained = explain(predictor, images, classes)

    kept = []
    stage = predictor.model.convnextv2.encoder.stages[-1]
    handle = stage.register_forward_hook(lambda module, inputs, output: kept.append(output))
    pixels = predictor.preprocessing.normalise(torch.tensor(images)).requires_grad_()
    logits = predictor.model(pixel_values=pixels).logits
    handle.remove()
    kept[0].retain_grad()
    logits[[0, 1, 2], classes].sum().backward()
    weights = kept[0].grad.mean(dim=(2, 3), keepdim=True)
    cam = (weights * kept[0]).sum(dim=1).relu().detach()
    assert cam.amax(dim=(1, 2)).min() > 0, "no evidence for a class"
    fine = torch.nn.functional.interpolate(cam[:, None], (SIZE, SIZE), mode="bilinear")[:, 0]
    expected = fine / fine.amax(dim=(1, 2), keepdim=True)
    np.testing.assert_allclose(explained, expected, atol=1e-5)


def test_each_class_has_its_own_map(predictor: Predictor) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE), np.uint8).repeat(3, axis=0)
    cam = explain(predictor, images, [0, 1, 2])
    assert cam.min() == 0
    assert cam.max() == 1
    assert not np.allclose(cam[0], cam[1])


def test_other_networks_are_not_explained(
    tmp_path: Path, publish_bundle: Callable[..., Path]
) -> None:
    def dinov2(directory: Path) -> None:
        config = Dinov2Config(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=SIZE,
            patch_size=16, id2label=dict(enumerate(CLASSES)),
        )  # fmt: skip
        (directory / "model.onnx").unlink()
        Dinov2ForImageClassification(config).save_pretrained(directory)
        images = np.zeros((1, SIZE, SIZE), np.uint8)
        Reference(images, Saved(directory, False).predict(images)).write(directory)

    probe = Predictor(publish_bundle(tmp_path, seed=1, finish=dinov2))
    assert probe.answer(np.zeros((1, SIZE, SIZE), np.uint8))[1] is None


def test_overlay_is_the_image_in_grey_and_the_map_in_colour() -> None:
    image = np.full((4, 256), 100, np.uint8)
    cam = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(4, axis=0)
    picture = np.asarray(Image.open(BytesIO(overlay(image, cam)), formats=("PNG",)))
    assert picture.shape == (4, 256, 3)
    assert picture[0, 0].tolist() == [100, 100, 100]
    plasma = colormaps["plasma"](cam)[..., :3] * 255
    weight = 0.6 * cam[..., None]
    np.testing.assert_allclose(picture, 100 * (1 - weight) + weight * plasma, atol=5)
