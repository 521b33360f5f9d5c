"""Bundles with right hashes that must not serve."""

import sys
from collections.abc import Callable
from pathlib import Path

import gates
import numpy as np
import pytest
import torch
from onnx import load, save
from spoiling import (
    IMAGES,
    WEIGHTS,
    Edit,
    edit_json,
    edit_weights,
    in_order,
    in_torch,
    other_reference,
    pickle_instead,
    remote_code,
    without,
)

from cxr_assets.learning import onnx
from cxr_serving.model.bundle import DISTRIBUTION_FILE, ONNX_FILE, REFERENCE_FILE, BundleError
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.reference import Reference

PublishBundle = Callable[..., Path]


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
        (lambda directory: (directory / "config.json").write_text("junk"), "cannot be loaded"),
        (in_torch(edit_json("config.json", model_type="nonesuch")), "nonesuch"),
        (in_torch(edit_json("config.json", hidden_sizes=[4, 4, 8, 16])), "cannot be loaded"),
        (
            in_torch(edit_weights(lambda tensors: tensors.pop("classifier.bias"))),
            r"lacks classifier\.bias",
        ),
        (in_torch(lambda directory: (directory / WEIGHTS).write_bytes(b"j")), "cannot be loaded"),
        (in_torch(pickle_instead), "cannot be loaded"),
        (in_torch(remote_code), "cannot be loaded"),
        (lambda directory: (directory / ONNX_FILE).write_bytes(b"junk"), "cannot be loaded"),
        (lambda directory: (directory / REFERENCE_FILE).write_bytes(b"junk"), "cannot be read"),
        (without(REFERENCE_FILE), "cannot be read"),
        (lambda directory: (directory / DISTRIBUTION_FILE).write_text("{}"), "cannot be read"),
        (
            lambda directory: Reference(IMAGES[:, :32], np.zeros((5, 3), np.float32)).write(
                directory
            ),
            "contradicts itself",
        ),
        (
            lambda directory: Reference(IMAGES, np.zeros((5, 2), np.float32)).write(directory),
            "contradicts itself",
        ),
    ],
)
def test_intact_but_inconsistent_bundle_is_rejected(
    tmp_path: Path, publish_bundle: PublishBundle, spoil: Edit, message: str
) -> None:
    directory = publish_bundle(tmp_path, seed=1, finish=spoil)
    with pytest.raises(BundleError, match=message) as error:
        Predictor(directory)
    assert str(directory) in str(error.value)


def test_onnx_of_another_input_is_rejected(tmp_path: Path, publish_bundle: PublishBundle) -> None:
    def of_32_pixels(directory: Path) -> None:
        config = directory / "preprocessor_config.json"
        before = config.read_text()
        edit_json(config.name, size={"height": 32, "width": 32})(directory)
        onnx.write(directory, flip_averaging=False)
        config.write_text(before)

    directory = publish_bundle(tmp_path, seed=1, finish=of_32_pixels)
    with pytest.raises(BundleError, match=r"contradicts itself: \[3, 32, 32\]"):
        Predictor(directory)


def test_gate_beside_a_network_without_features_is_rejected(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    def without_features(directory: Path) -> None:
        network = load(directory / ONNX_FILE)
        network.graph.output.pop()
        save(network, directory / ONNX_FILE)

    directory = publish_bundle(tmp_path, seed=1, finish=without_features)
    with pytest.raises(BundleError, match="contradicts itself"):
        Predictor(directory)


def test_gate_of_another_network_is_rejected(tmp_path: Path, publish_bundle: PublishBundle) -> None:
    other = gates.rejecting(features=9)
    directory = publish_bundle(tmp_path, seed=1, finish=other.write)
    with pytest.raises(BundleError, match=r"contradicts itself: \[8\]"):
        Predictor(directory)


@pytest.mark.parametrize("edit", [other_reference, in_order(other_reference, without(ONNX_FILE))])
def test_model_that_answers_its_reference_images_differently_is_rejected(
    tmp_path: Path, publish_bundle: PublishBundle, edit: Edit
) -> None:
    directory = publish_bundle(tmp_path, seed=1, finish=edit)
    message = rf"{directory.name} does not answer its reference images .*1\.0e-02"
    with pytest.raises(BundleError, match=message):
        Predictor(directory)


def test_nan_is_not_an_answer_to_the_reference_images(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    spoil = in_torch(edit_weights(lambda tensors: tensors["classifier.bias"].fill_(torch.nan)))
    with pytest.raises(BundleError, match=r"does not answer its reference images .* nan"):
        Predictor(publish_bundle(tmp_path, seed=1, finish=spoil))


@pytest.mark.parametrize(
    ("device", "finish", "reason"),
    [
        ("cpu", without(ONNX_FILE), r"computes without model\.onnx, which needs torch and transf"),
        ("cuda", lambda directory: None, "computes on cuda, which needs torch and transformers"),
    ],
)
def test_without_torch_the_error_names_the_extra_that_installs_it(
    tmp_path: Path,
    publish_bundle: PublishBundle,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    finish: Edit,
    reason: str,
) -> None:
    directory = publish_bundle(tmp_path, seed=1, finish=finish)
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BundleError, match=rf"{reason}.* pip install 'cxr-retraining\[cuda\]'"):
        Predictor(directory, device)
