from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx as onnx_format
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from sklearn.metrics import f1_score
from transformers import AutoModelForImageClassification, ConvNextV2Config
from transformers import ConvNextV2ForImageClassification as ConvNextV2

from cxr_assets.learning import onnx
from cxr_serving.model.bundle import INT8_FILE, ONNX_FILE
from cxr_serving.model.predictor import softmax
from cxr_serving.model.preprocessing import Preprocessing

SIZE = 64


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in which every layer matters: with initial weights, GRN is the identity."""
    directory = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    config = ConvNextV2Config(
        image_size=SIZE, hidden_sizes=[4, 8, 12, 16], depths=[1, 2, 1, 1], num_labels=3
    )
    network = ConvNextV2(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "grn" in name or name.endswith("bias"):
                parameter.normal_(0, 0.5)
            elif "conv" in name or "classifier" in name:
                parameter.mul_(10)
    network.save_pretrained(directory)
    Preprocessing(SIZE).write(directory)
    return directory


@pytest.mark.parametrize("flip_averaging", [False, True])
def test_the_graph_gives_the_answers_of_the_saved_network(saved, flip_averaging):
    onnx.write(saved, flip_averaging)
    session = onnxruntime.InferenceSession(saved / ONNX_FILE)
    network = AutoModelForImageClassification.from_pretrained(saved).eval()
    for number in (1, 5):
        pixels = torch.randn(number, 3, SIZE, SIZE)
        with torch.inference_mode():
            expected = network(pixels).logits
            if flip_averaging:
                expected = (expected + network(pixels.flip(-1)).logits) / 2
        [logits] = session.run(["logits"], {"pixel_values": pixels.numpy()})
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(logits, axis=0).min() > 0.1, "images that are answered alike show nothing"


def test_the_graph_in_int8_is_smaller_and_answers_nearly_the_same(saved):
    onnx.write(saved, True)
    onnx.quantise(saved)
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE), np.uint8)
    images[1:] //= np.arange(2, 6, dtype=np.uint8)[:, None, None]
    exact, rounded = (onnx.predict(saved / name, images) for name in (ONNX_FILE, INT8_FILE))
    assert 0 < np.abs(exact - rounded).max() < 0.05
    assert np.ptp(exact, axis=0).max() > 0.05
    np.testing.assert_array_equal(exact, onnx.predict(saved / ONNX_FILE, [images[:2], images[2:]]))


def test_the_same_network_gives_the_same_bytes_without_traces_of_this_machine(saved):
    made = []
    for _ in range(2):
        onnx.write(saved, True)
        onnx.quantise(saved)
        made.append([(saved / name).read_bytes() for name in (ONNX_FILE, INT8_FILE)])
    assert made[0] == made[1]
    for name in (str(saved).encode(), str(Path.cwd()).encode()):
        assert not any(name in content for content in made[0])
    assert {path.name for path in saved.glob("*.onnx")} == {ONNX_FILE, INT8_FILE}


class MatMulInteger(OpRun):
    """As x86-64 without VNNI computes it: ``vpmaddubsw`` keeps the sum of two products in 16 bits.

    Probabilities under it are those of ONNX Runtime's own AVX2 kernels to the last bits.
    """

    op_domain = ""

    def _run(self, activations, weights, zero_point=0, weights_zero_point=0):
        assert not np.any(weights_zero_point)
        inner = activations.shape[-1]
        activations = np.pad(activations.astype(np.int32), [(0, 0), (0, inner % 2)])
        pairs = np.pad(weights.astype(np.int32), [(0, inner % 2), (0, 0)])
        total = sum(
            (activations[:, k : k + 2] @ pairs[k : k + 2]).clip(-(2**15), 2**15 - 1)
            for k in range(0, inner, 2)
        )
        return ((total - np.int32(zero_point) * pairs.sum(axis=0)).astype(np.int32),)


def without_vnni(directory: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Probabilities of the graph in int8, image by image, on a processor that saturates."""
    graph = ReferenceEvaluator(onnx_format.load(directory / INT8_FILE), new_ops=[MatMulInteger])
    pixels = Preprocessing.read(directory).normalise(images)
    answers = [graph.run(["logits"], {"pixel_values": image[np.newaxis]})[0] for image in pixels]
    return softmax(np.concatenate(answers))


def test_int8_answers_the_same_on_a_processor_whose_sums_saturate(tmp_path):
    """A bundle must answer the same on another processor; here nearly every sum of two is large."""
    size = 32
    torch.manual_seed(0)
    shape = {"hidden_sizes": [4, 8, 12, 16], "depths": [1, 2, 1, 1], "num_labels": 3}
    network = ConvNextV2(ConvNextV2Config(image_size=size, **shape)).eval()
    images = np.random.default_rng(0).integers(0, 256, (40, size, size), np.uint8)
    images //= (1 + np.arange(40, dtype=np.uint8) % 8)[:, None, None]
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "pwconv" in name or name == "classifier.weight":
                parameter.sign_()
            elif "grn" in name or name.endswith("bias"):
                parameter.normal_(0, 0.5)
            elif "conv" in name:
                parameter.mul_(10)
        pixels = Preprocessing(size).normalise(torch.tensor(images))
        network.classifier.bias -= network(pixel_values=pixels).logits.mean(dim=0)
    network.save_pretrained(tmp_path)
    Preprocessing(size).write(tmp_path)
    onnx.write(tmp_path, False)
    onnx.quantise(tmp_path)

    here = onnx.predict(tmp_path / INT8_FILE, images)
    there = without_vnni(tmp_path, images)
    np.testing.assert_allclose(there, here, atol=1e-4)
    exact = onnx.predict(tmp_path / ONNX_FILE, images).argmax(axis=1)
    assert set(exact) == {0, 1, 2}
    assert f1_score(exact, there.argmax(axis=1), average="macro") > 0.9


def test_no_sum_of_two_products_of_the_graph_in_int8_can_leave_16_bits(saved):
    """Whatever the activations, 0..255, and whichever two products a kernel adds."""
    onnx.write(saved, True)
    onnx.quantise(saved)
    graph = onnx_format.load(saved / INT8_FILE).graph
    tensors = {one.name: onnx_format.numpy_helper.to_array(one) for one in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 2 * 11, "two linear layers a block and the head, of image and mirror"
    for node in products:
        weights = tensors[node.input[1]]
        assert weights.dtype == np.int8
        assert 0 < 2 * 255 * np.abs(weights.astype(int)).max() < 2**15
