"""Export to ONNX, for runtimes without torch."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn
from transformers.models.convnextv2.modeling_convnextv2 import ConvNextV2Layer

from cxr_serving.model import network, processors
from cxr_serving.model.bundle import INT8_FILE, ONNX_FILE
from cxr_serving.model.network import Explained
from cxr_serving.model.onnx import OUTPUTS, OnnxNetwork
from cxr_serving.model.predictor import softmax
from cxr_serving.model.preprocessing import Preprocessing


class _Block(nn.Module):
    """A block of ConvNeXt V2, rewritten for speed in ONNX Runtime; the outputs are the same.

    Linear layers with two-dimensional input become ``Gemm`` with a bias. Global response
    normalisation becomes one factor per channel and image; its beta joins the next bias.
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
        """Features [N, C, H, W] to the same shape."""
        channels, height, width = (int(side) for side in features.shape[1:])
        inner = self.layernorm(self.dwconv(features).permute(0, 2, 3, 1))
        inner = self.act(self.pwconv1(inner.reshape(-1, channels)))
        inner = inner.view(-1, height * width, 4 * channels)
        # A product with ones is a sum; the runtime's own sum over rows is several times slower.
        norm = (torch.ones(1, height * width) @ (inner * inner)).sqrt()
        inner = inner * (1 + self.gamma * (norm / (norm.mean(-1, keepdim=True) + 1e-6)))
        inner = nn.functional.linear(inner.view(-1, 4 * channels), self.pwconv2.weight, self.bias)
        return features + inner.view(-1, height, width, channels).permute(0, 3, 1, 2)


def write(directory: Path, flip_averaging: bool) -> None:
    """Write ``model.onnx`` next to the saved network.

    Input: ``pixel_values``, float32 [N, 3, size, size], as ``preprocessor_config.json`` makes them.
    Outputs: ``logits``, float32 [N, classes], averaged over the horizontal flip if
    ``flip_averaging``; for a ConvNeXt V2 also ``cam``, float32 [N, classes, h, w], the class
    activation maps, and ``features``, float32 [N, C], what its linear layer sees. N is dynamic.

    Args:
        directory: with network and preprocessing in the format of transformers.
        flip_averaging: whether the logits are the mean over an image and its horizontal flip.
    """
    answering = network.wrap(network.load(directory), flip_averaging)
    outputs = OUTPUTS if isinstance(answering, Explained) else OUTPUTS[:1]
    with torch.no_grad():
        for module in list(answering.modules()):
            for name, child in module.named_children():
                if isinstance(child, ConvNextV2Layer):
                    setattr(module, name, _Block(child))
    size = Preprocessing.read(directory).size
    with warnings.catch_warnings():
        # About the newer exporter (twenty times slower for the same graph; torch is pinned), and
        # about sizes that are traced as constants, which they are.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            answering,
            (torch.zeros(1, 3, size, size),),
            directory / ONNX_FILE,
            input_names=["pixel_values"],
            output_names=list(outputs),
            dynamic_axes={name: {0: "images"} for name in ("pixel_values", *outputs)},
            dynamo=False,
        )


def quantise(directory: Path) -> None:
    """Write ``model.int8.onnx``: ``model.onnx`` with linear layers in 8-bit integers.

    Weights are quantised per channel, activations dynamically.

    Weights have 7 bits, -64..64: on x86-64 without VNNI the sum of two products of an unsigned
    activation and a signed weight is kept in 16 bits, and 2 * 255 * 64 is the largest that fits
    (onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range"). So the
    integers are the same on every processor, and what is measured at export holds elsewhere.
    """
    # N is the only symbolic dimension of the graph.
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
    file: Path, images: npt.NDArray[np.uint8] | Iterable[npt.NDArray[np.uint8]]
) -> npt.NDArray[np.float32]:
    """Probabilities float32 [N, classes] of images, computed as by the predictor."""
    # Not by `run`, which holds all outputs for all images.
    return np.concatenate([softmax(logits) for logits, *_ in _outputs(file, images)])


def run(
    file: Path, images: npt.NDArray[np.uint8] | Iterable[npt.NDArray[np.uint8]]
) -> tuple[npt.NDArray[np.float32], ...]:
    """All outputs for images, computed as by the predictor, which loads complete bundles only.

    Args:
        file: ``model.onnx`` or ``model.int8.onnx``, next to its preprocessing.
        images: uint8 [N, size, size], or an iterable of such arrays, read one by one.
    """
    answers = zip(*_outputs(file, images), strict=True)
    return tuple(np.concatenate(output) for output in answers)


def _outputs(
    file: Path, images: npt.NDArray[np.uint8] | Iterable[npt.NDArray[np.uint8]]
) -> Iterator[tuple[npt.NDArray[np.float32], ...]]:
    compute = OnnxNetwork(file, Preprocessing.read(file.parent), processors.count())
    return map(compute, [images] if isinstance(images, np.ndarray) else images)
