import tempfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning import backbone as module
from cxr_assets.learning import base_weights, networks, reference
from cxr_assets.learning.backbone import embedder
from cxr_assets.radiographs.dataset import kept, read
from cxr_serving.model.preprocessing import Preprocessing

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "dinov2-small"
# By torch in float64.
RECORDED = Path(__file__).with_name("dinov2_small.npy")


@pytest.mark.parametrize("device", [None, torch.device("cpu")], ids=["onnx", "torch"])
@pytest.mark.parametrize("changes", [{}, {"use_swiglu_ffn": True}, {"qkv_bias": False}])
def test_embeddings_are_those_of_the_network(tmp_path, monkeypatch, changes, device):
    """A network trained at another size than that of the images."""
    monkeypatch.setattr(module, "accelerator", lambda: device)
    layout = Layout(tmp_path)
    tiny.processed(layout)
    files = kept(layout.processed, "test")["file"].tolist()
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        patch_size=8,
        image_size=80,
        initializer_range=0.3,
        **changes,
    )
    backbone = Dinov2Model(config).eval()
    for parameter in backbone.parameters():  # biases and scales start at constants
        parameter.data += 0.1 * torch.randn_like(parameter)
    preprocessing = Preprocessing(tiny.SIZE)
    rows = np.stack(list(embedder(backbone, preprocessing)(layout.processed, files)))
    pixels = torch.from_numpy(preprocessing.normalise(read(layout.processed, files, tiny.SIZE)))
    with torch.no_grad():
        expected = backbone(pixel_values=pixels).last_hidden_state[:, 0].numpy()
    assert np.ptp(expected, axis=0).max() > 0.1, "images differ"
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_no_file_is_made_that_a_kill_would_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    backbone = Dinov2Model(Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    preprocessing = Preprocessing(tiny.SIZE)
    assert list(embedder(backbone.eval(), preprocessing)(tmp_path, [])) == []
    reference._images.cache_clear()
    assert reference._images(preprocessing).shape == (8, tiny.SIZE, tiny.SIZE)


def patterns(size: int) -> list[np.ndarray]:
    """By integers alone, so that they are the same on every machine."""
    row, column = np.indices((size, size))
    return [
        (row * (number + 1) + column**2 // (5 + number) + row * column // 50) % 256
        for number in range(4)
    ]


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="no weights of DINOv2-small")
def test_weights_in_the_hubs_format_embed_as_recorded(tmp_path):
    size = 224
    for number, pattern in enumerate(patterns(size)):
        Image.fromarray(pattern.astype(np.uint8)).save(tmp_path / f"{number}.png")
    probe = compose("full", [f"probe.pretrained={WEIGHTS}"]).probe
    network = networks.build(networks.dinov2_config(probe, size, tiny.CLASSES))
    base_weights.load(network, str(WEIGHTS), probe.revision)
    files = [f"{number}.png" for number in range(4)]
    rows = np.stack(list(embedder(network.dinov2, Preprocessing(size))(tmp_path, files)))
    expected = np.load(RECORDED)
    np.testing.assert_allclose(rows, expected, atol=1e-3, rtol=0)
    cosines = (rows * expected).sum(1) / np.linalg.norm(rows, axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1)).min() > 0.9999
