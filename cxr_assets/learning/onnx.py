"""The network as ONNX, for runtimes without torch."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn
from transformers.models.convnextv2.modeling_convnextv2 import ConvNextV2Layer

from cxr_serving.model import network
from cxr_serving.model.bundle import INT8_FILE, ONNX_FILE
from cxr_serving.model.network import Explained
from cxr_serving.model.predictor import OnnxNetwork, cores, softmax
from cxr_serving.model.preprocessing import Preprocessing


class _Block(nn.Module):
    """A block of ConvNeXt V2, laid out for ONNX Runtime; it answers the same.

    Linear layers of two-dimensional input become ``Gemm`` with the bias inside. Global response
    normalisation is one factor a channel and image, and its beta part of the bias that follows.
    """

    gamma: torch.Tensor
    bias: torch.Tensor

    def __init__(self, layer: ConvNextV2Layer) -> None:
        super().__init__()
        self.dwconv, self.layernorm = layer.dwconv, layer.layernorm
        self.pwconv1, self.pwconv2 = layer.pwconv1, layer.pwconv2
        self.act = layer.act
        self.register_buffer("gamma", layer.grn.weight.flatten())
        beta = layer.grn.bias.flatten()
        self.register_buffer("bias", layer.pwconv2.bias + layer.pwconv2.weight @ beta)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Of features [N, C, H, W], the same shape."""
        channels, height, width = (int(side) for side in features.shape[1:])
        inner = self.layernorm(self.dwconv(features).permute(0, 2, 3, 1))
        inner = self.act(self.pwconv1(inner.reshape(-1, channels)))
        inner = inner.view(-1, height * width, 4 * channels)
        # A product with ones is a sum: the runtime's own over rows takes several times as long.
        norm = (torch.ones(1, height * width) @ (inner * inner)).sqrt()
        inner = inner * (1 + self.gamma * (norm / (norm.mean(-1, keepdim=True) + 1e-6)))
        inner = nn.functional.linear(inner.view(-1, 4 * channels), self.pwconv2.weight, self.bias)
        return features + inner.view(-1, height, width, channels).permute(0, 3, 1, 2)


def write(directory: Path, flip_averaging: bool) -> None:
    """Write ``model.onnx`` beside the saved network.

    Its input is ``pixel_values``, float32 [N, 3, size, size] as ``preprocessor_config.json`` makes
    them, and its output ``logits``, float32 [N, classes], which are averaged over the horizontal
    flip where the bundle says so; of a ConvNeXt V2 also ``cam``, float32 [N, classes, h, w], where
    the image evidence for each class. N is free.

    Args:
        directory: holds network and preprocessing in the format of transformers.
        flip_averaging: whether the logits are the mean over an image and its horizontal flip.
    """
    answering = network.wrap(network.load(directory), flip_averaging)
    outputs = ["logits", "cam"] if isinstance(answering, Explained) else ["logits"]
    with torch.no_grad():
        for module in list(answering.modules()):
            for name, child in module.named_children():
                if isinstance(child, ConvNextV2Layer):
                    setattr(module, name, _Block(child))
    size = Preprocessing.read(directory).size
    with warnings.catch_warnings():
        # That there is a newer exporter (twenty times as slow for the same graph; torch is pinned),
        # and that sizes are traced as constants, which they are.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            answering,
            (torch.zeros(1, 3, size, size),),
            directory / ONNX_FILE,
            input_names=["pixel_values"],
            output_names=outputs,
            dynamic_axes={name: {0: "images"} for name in ("pixel_values", *outputs)},
            dynamo=False,
        )


def quantise(directory: Path) -> None:
    """Write ``model.int8.onnx``: ``model.onnx`` with linear layers in 8-bit integers.

    Weights are rounded by channel, activations while it computes, by what they are then.

    Weights have 7 bits, -64..64: on x86-64 without VNNI the sum of two products of an unsigned
    activation and a signed weight is kept in 16 bits, and 2 * 255 * 64 is the largest that fits
    (onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range"). So the
    integers are the same on every processor, and what is measured at export holds elsewhere.
    """
    # The graph has no symbolic shape but N.
    quant_pre_process(directory / ONNX_FILE, directory / INT8_FILE, skip_symbolic_shape=True)
    quantize_dynamic(
        directory / INT8_FILE,
        directory / INT8_FILE,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        reduce_range=True,
    )


def predict(
    file: Path, images: npt.NDArray[np.uint8] | Iterable[npt.NDArray[np.uint8]], batch: int
) -> npt.NDArray[np.float32]:
    """Probabilities float32 [N, classes] of images, computed as the predictor does.

    The predictor itself takes only a bundle that is whole.

    Args:
        file: ``model.onnx`` or ``model.int8.onnx``, its preprocessing beside it.
        images: uint8 [N, size, size], or any number of such arrays, of which none is kept.
        batch: images of a forward pass at most.
    """
    compute = OnnxNetwork(file, Preprocessing.read(file.parent), cores())
    given = [images] if isinstance(images, np.ndarray) else images
    logits = [
        compute(part)[0]
        for some in given
        for part in np.split(some, range(batch, len(some), batch))
    ]
    return softmax(np.concatenate(logits))
