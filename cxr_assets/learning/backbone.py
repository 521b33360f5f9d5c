"""The frozen DINOv2 at work: CLS embeddings by ONNX Runtime on a CPU, by torch elsewhere."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.dinov2.modeling_dinov2 import Dinov2Attention, Dinov2Layer

from cxr_assets.radiographs import dataset
from cxr_serving.model import processors
from cxr_serving.model.preprocessing import Preprocessing

_BATCH = 32

Embedding = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Embeds images; the embedding of an image does not depend on what else is embedded."""

    def __call__(self, directory: Path, files: Sequence[str]) -> Iterator[Embedding]:
        """CLS embeddings float32 [hidden], in the order of ``files``.

        Args:
            directory: the processed dataset.
            files: of the images, as in the manifest.

        Raises:
            DatasetError: an image is missing or has another size.
        """


MakesEmbedder = Callable[[PreTrainedModel, Preprocessing], Embedder]
"""Makes what embeds, as :func:`embedder` does."""


def accelerator() -> torch.device | None:
    """What computes instead of the CPU, if there is anything."""
    return torch.accelerator.current_accelerator(check_available=True)


def embedder(backbone: PreTrainedModel, preprocessing: Preprocessing) -> Embedder:
    """What embeds on this machine.

    Args:
        backbone: a DINOv2; it is put in eval mode.
        preprocessing: how an image becomes its input.
    """
    device = accelerator()
    if device is None:
        return _OnCpu(backbone.eval(), preprocessing)
    return _OnAccelerator(backbone.eval().to(device), preprocessing)


class _OnCpu:
    """One image at a time on each processor.

    The activations of one image stay in a processor's cache, and no thread waits for another: a
    batch on all threads is slower.
    """

    def __init__(self, backbone: PreTrainedModel, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        size = preprocessing.size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Not a file, which a kill would leave for good.
        exported = BytesIO()
        with warnings.catch_warnings():
            # About the newer exporter, which takes longer, and about sizes traced as constants.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                ClsEmbedding(backbone, size),
                (torch.zeros(1, 3, size, size),),
                exported,  # type: ignore[arg-type]
                input_names=["pixel_values"],
                dynamo=False,
            )
        self._session = onnxruntime.InferenceSession(
            exported.getvalue(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, directory: Path, files: Sequence[str]) -> Iterator[Embedding]:
        def embed(file: str) -> Embedding:
            [image] = dataset.batches(directory, [file], self._preprocessing.size, 1)
            pixels = self._preprocessing.normalise(image)
            embedding: Embedding = self._session.run(None, {"pixel_values": pixels})[0][0]
            return embedding

        with ThreadPoolExecutor(processors.count()) as pool:
            yield from pool.map(embed, files)


class _OnAccelerator:
    """Batches of always the same size: kernels may round differently for another one."""

    def __init__(self, backbone: PreTrainedModel, preprocessing: Preprocessing) -> None:
        self._backbone, self._preprocessing = backbone, preprocessing

    @torch.inference_mode()
    def __call__(self, directory: Path, files: Sequence[str]) -> Iterator[Embedding]:
        size = self._preprocessing.size
        for batch in map(torch.from_numpy, dataset.batches(directory, files, size, _BATCH)):
            full = torch.cat([batch, batch[-1:].expand(_BATCH - len(batch), -1, -1)])
            pixels = self._preprocessing.normalise(full.to(self._backbone.device))
            output = self._backbone(pixel_values=pixels).last_hidden_state
            yield from output[: len(batch), 0].float().cpu().numpy()


class ClsEmbedding(nn.Module):
    """The CLS embedding of a DINOv2, rewritten for speed in ONNX Runtime; the outputs are the same.

    One image, so that linear layers have two-dimensional input and become ``Gemm`` with a bias.
    The interpolated position embeddings are constant, and the last layer computes nothing but the
    CLS token, which alone is read.

    Args:
        backbone: in eval mode.
        size: side of the image, in pixels.
    """

    positions: torch.Tensor

    def __init__(self, backbone: PreTrainedModel, size: int) -> None:
        super().__init__()
        self.backbone = backbone
        embeddings, config = backbone.embeddings, backbone.config
        tokens = torch.empty(1, 1 + (size // config.patch_size) ** 2, config.hidden_size)
        with torch.no_grad():
            positions = embeddings.interpolate_pos_encoding(tokens, size, size)[0]
        self.register_buffer("positions", positions)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embedding float32 [1, hidden] of a normalised image [1, 3, size, size]."""
        embeddings, [*layers, last] = self.backbone.embeddings, self.backbone.encoder.layer
        patches = embeddings.patch_embeddings(pixel_values)[0]
        tokens = torch.cat([embeddings.cls_token[0], patches]) + self.positions
        for layer in layers:
            tokens = _advanced(layer, tokens, len(self.positions))
        embedding: torch.Tensor = self.backbone.layernorm(_advanced(last, tokens, 1))
        return embedding


def _advanced(layer: Dinov2Layer, tokens: torch.Tensor, number: int) -> torch.Tensor:
    """The first ``number`` of the tokens [N, hidden], as a layer leaves them."""
    normed = layer.norm1(tokens)
    attended = _attended(layer.attention, normed[:number], normed)
    tokens = tokens[:number] + layer.layer_scale1(attended)
    advanced: torch.Tensor = tokens + layer.layer_scale2(layer.mlp(layer.norm2(tokens)))
    return advanced


def _attended(attention: Dinov2Attention, some: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """What some tokens [M, hidden] gather from all tokens [N, hidden]."""
    heads = (-1, attention.num_attention_heads, attention.head_dim)
    query = attention.q_proj(some).view(heads).transpose(0, 1)
    key = attention.k_proj(tokens).view(heads).permute(1, 2, 0)
    value = attention.v_proj(tokens).view(heads).transpose(0, 1)
    weights = (query @ key * attention.scaling).softmax(dim=-1)
    gathered: torch.Tensor = attention.o_proj((weights @ value).transpose(0, 1).flatten(1))
    return gathered
