import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.image_utils import load_image

from cxr_assets.learning import onnx
from cxr_serving.model import reference
from cxr_serving.model.bundle import DISTRIBUTION_FILE, ONNX_FILE, REFERENCE_FILE, BundleError
from cxr_serving.model.predictor import OnnxNetwork, Predictor
from cxr_serving.model.reference import Reference

PublishBundle = Callable[..., Path]
Edit = Callable[[Path], object]
WEIGHTS = "model.safetensors"
INT8 = {"difference": 0.01, "macro_f1": 0.5, "macro_f1_drop": 0.0, "accepted": True}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 64, 64), dtype=np.uint8) // np.arange(
    1, 6, dtype=np.uint8
).reshape(5, 1, 1)


def in_order(*edits: Edit) -> Edit:
    return lambda directory: [edit(directory) for edit in edits]


def without(*names: str) -> Edit:
    return lambda directory: [(directory / name).unlink() for name in names]


def in_torch(edit: Edit) -> Edit:
    return in_order(without(ONNX_FILE), edit)


def decided(directory: Path) -> None:
    """Answers that are far apart, as a trained network's are."""
    edit_weights(lambda tensors: tensors["classifier.weight"].mul_(40))(directory)
    onnx.write(directory, flip_averaging=False)
    answer(directory)


def answer(directory: Path) -> None:
    answers = onnx.predict(directory / ONNX_FILE, IMAGES, 1)
    assert np.ptp(answers, axis=0).max() > 0.1
    Reference(IMAGES, answers).write(directory)


def other_reference(directory: Path) -> None:
    kept = reference.read(directory)
    assert kept is not None
    Reference(kept.images, kept.probabilities + np.float32([0.01, -0.01, 0])).write(directory)


def edit_json(name: str, **changes: object) -> Edit:
    def edit(directory: Path) -> None:
        path = directory / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Edit:
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
    actual = predictor.predict(np.stack([predictor.preprocessing.decode(image)]))
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


@pytest.mark.parametrize("edit", [other_reference, in_order(other_reference, without(ONNX_FILE))])
def test_model_that_answers_its_reference_images_differently_is_rejected(
    tmp_path: Path, publish_bundle: PublishBundle, edit: Edit
) -> None:
    directory = publish_bundle(tmp_path, seed=1, finish=edit)
    message = rf"{directory.name} does not answer its reference images .*1\.0e-02"
    with pytest.raises(BundleError, match=message):
        Predictor(directory)


def test_bundle_without_onnx_and_distribution_serves(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    finish = without(ONNX_FILE, DISTRIBUTION_FILE)
    predictor = Predictor(publish_bundle(tmp_path, seed=1, finish=finish))
    assert predictor.distribution is None
    np.testing.assert_allclose(predictor.predict(IMAGES).sum(axis=1), 1, atol=1e-6)


def test_nan_is_not_an_answer_to_the_reference_images(
    tmp_path: Path, publish_bundle: PublishBundle
) -> None:
    spoil = in_torch(edit_weights(lambda tensors: tensors["classifier.bias"].fill_(torch.nan)))
    with pytest.raises(BundleError, match=r"does not answer its reference images .* nan"):
        Predictor(publish_bundle(tmp_path, seed=1, finish=spoil))


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


def test_after_the_check_only_larger_batches_warm_onnx_runtime_up(
    tmp_path: Path, publish_bundle: PublishBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = publish_bundle(tmp_path, seed=1)
    sizes: list[int] = []
    compute = OnnxNetwork.__call__

    def counted(network: OnnxNetwork, images: np.ndarray) -> object:
        sizes.append(len(images))
        return compute(network, images)

    monkeypatch.setattr(OnnxNetwork, "__call__", counted)
    Predictor(directory, max_batch=3)
    Predictor(directory, max_batch=8)
    assert sizes == [3, 3, 8]
