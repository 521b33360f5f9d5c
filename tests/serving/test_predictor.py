import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.image_utils import load_image

from cxr_serving.bundle import BundleError
from cxr_serving.predictor import Predictor

PublishBundle = Callable[..., Path]
WEIGHTS = "model.safetensors"


def edit_json(name: str, **changes: object) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        path = directory / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        tensors = load_file(directory / WEIGHTS)
        change(tensors)
        save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})

    return edit


def pickle_instead(directory: Path) -> None:
    torch.save(load_file(directory / WEIGHTS), directory / "pytorch_model.bin")
    (directory / WEIGHTS).unlink()


def remote_code(directory: Path) -> None:
    (directory / "evil.py").write_text("raise SystemExit('ran')")
    edit_json(
        "config.json",
        model_type="evil",
        auto_map={
            "AutoConfig": "evil.Config",
            "AutoModelForImageClassification": "evil.Model",
        },
    )(directory)


def test_probabilities_are_those_of_transformers(
    tmp_path: Path, publish_bundle: PublishBundle, film: bytes
) -> None:
    directory = publish_bundle(tmp_path, seed=1)
    (tmp_path / "film.jpeg").write_bytes(film)
    processor = AutoImageProcessor.from_pretrained(directory)
    model = AutoModelForImageClassification.from_pretrained(directory).eval()
    with torch.inference_mode():
        inputs = processor(images=load_image(str(tmp_path / "film.jpeg")), return_tensors="pt")
        expected = model(**inputs).logits.softmax(dim=1).numpy()

    predictor = Predictor(directory)
    actual = predictor.predict(np.stack([predictor.preprocessing.decode(film)]))
    assert actual.shape == (1, 3)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_a_film_is_answered_the_same_alone_and_among_others(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    predictor = Predictor(publish_bundle(tmp_path, seed=1))
    films = np.random.default_rng(0).integers(0, 256, (5, 64, 64), dtype=np.uint8)
    together = predictor.predict(films)
    alone = np.concatenate([predictor.predict(film[np.newaxis]) for film in films])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (edit_json("config.json", id2label={"0": "cat", "1": "dog", "2": "bird"}), "cat"),
        (edit_json("preprocessor_config.json", do_center_crop=True), "does not do"),
        (edit_json("preprocessor_config.json", size=64), "cannot be loaded"),
        (
            edit_json("preprocessor_config.json", size={"height": 32, "width": 32}),
            "32 in the model",
        ),
        (edit_json("config.json", model_type="nonesuch"), "nonesuch"),
        (edit_json("config.json", hidden_sizes=[4, 4, 8, 16]), "cannot be loaded"),
        (edit_weights(lambda tensors: tensors.pop("classifier.bias")), r"lacks classifier\.bias"),
        (lambda directory: (directory / WEIGHTS).write_bytes(b"junk"), "cannot be loaded"),
        (lambda directory: (directory / "config.json").write_text("junk"), "cannot be loaded"),
        (pickle_instead, "cannot be loaded"),
        (remote_code, "cannot be loaded"),
    ],
)
def test_bundle_that_is_whole_but_wrong_is_refused(
    tmp_path: Path,
    publish_bundle: PublishBundle,
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    directory = publish_bundle(tmp_path, seed=1, finish=spoil)
    with pytest.raises(BundleError, match=message) as error:
        Predictor(directory)
    assert str(directory) in str(error.value)


def test_loaded_model_does_not_change_with_its_file(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    directory = publish_bundle(tmp_path, seed=1)
    predictor = Predictor(directory)
    films = np.zeros((1, 64, 64), np.uint8)
    before = predictor.predict(films)
    with (directory / WEIGHTS).open("r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(predictor.predict(films), before)
