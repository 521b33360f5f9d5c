import numpy as np
import pytest
import tiny
import torch
from transformers import Dinov2Config, Dinov2Model

from cxr_assets.layout import Layout
from cxr_assets.learning.backbone import embedder
from cxr_assets.radiographs.dataset import kept, read
from cxr_serving.model.preprocessing import Preprocessing


@pytest.mark.parametrize("changes", [{}, {"use_swiglu_ffn": True}, {"qkv_bias": False}])
@pytest.mark.parametrize("image_size", [tiny.SIZE, 80])
def test_onnx_embeds_as_the_network_does(tmp_path, image_size, changes):
    """Trained at the size of the images or at another, so that positions are interpolated."""
    layout = Layout(tmp_path)
    tiny.processed(layout)
    files = kept(layout.processed, "test")["file"].tolist()
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        patch_size=8,
        image_size=image_size,
        initializer_range=0.3,
        **changes,
    )
    backbone = Dinov2Model(config).eval()
    for parameter in backbone.parameters():  # biases and scales start at constants
        parameter.data += 0.1 * torch.randn_like(parameter)
    preprocessing = Preprocessing(tiny.SIZE)
    rows = np.stack(list(embedder(backbone, preprocessing)(layout.processed, files)))
    pixels = preprocessing.normalise(read(layout.processed, files, tiny.SIZE))
    with torch.no_grad():
        expected = backbone(pixel_values=pixels).last_hidden_state[:, 0].numpy()
    assert np.ptp(expected, axis=0).max() > 0.1, "images differ"
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
