from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModelForImageClassification, ConvNextV2Config
from transformers import ConvNextV2ForImageClassification as ConvNextV2

from cxr_assets.learning import onnx
from cxr_serving.bundle import INT8_FILE, ONNX_FILE
from cxr_serving.preprocessing import Preprocessing

SIZE = 64


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of which every layer has a say: at random, GRN is still the identity."""
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
def test_the_graph_answers_as_the_saved_network(saved, flip_averaging):
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
    assert np.ptp(logits, axis=0).min() > 0.1, "films that are answered alike show nothing"


def test_the_graph_in_int8_is_smaller_and_answers_nearly_the_same(saved):
    onnx.write(saved, True)
    onnx.quantise(saved)
    films = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE), np.uint8)
    films[1:] //= np.arange(2, 6, dtype=np.uint8)[:, None, None]
    exact, rounded = (onnx.predict(saved / name, films, 1) for name in (ONNX_FILE, INT8_FILE))
    assert 0 < np.abs(exact - rounded).max() < 0.05
    assert np.ptp(exact, axis=0).max() > 0.05
    np.testing.assert_allclose(exact, onnx.predict(saved / ONNX_FILE, films, 2), atol=1e-5)


def test_the_same_network_gives_the_same_bytes_that_tell_nothing_of_this_machine(saved):
    made = []
    for _ in range(2):
        onnx.write(saved, True)
        onnx.quantise(saved)
        made.append([(saved / name).read_bytes() for name in (ONNX_FILE, INT8_FILE)])
    assert made[0] == made[1]
    for name in (str(saved).encode(), str(Path.cwd()).encode()):
        assert not any(name in content for content in made[0])
    assert {path.name for path in saved.glob("*.onnx")} == {ONNX_FILE, INT8_FILE}
