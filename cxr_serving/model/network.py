"""The network of a bundle in torch: as it is loaded, and what of its answers counts."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    ConvNextV2ForImageClassification,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from cxr_serving.model.bundle import WEIGHTS_FILE, BundleError

# Of loading weights, which is a matter of milliseconds.
disable_progress_bar()


class Logits(nn.Module):
    """What a network answers, averaged over the horizontal flip where a bundle says so.

    Args:
        network: of transformers, for image classification.
        flip_averaging: whether the logits are the mean over an image and its horizontal flip.
    """

    def __init__(self, network: PreTrainedModel, flip_averaging: bool) -> None:
        super().__init__()
        self.network = network
        self.flip_averaging = flip_averaging

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits float32 [N, classes] of normalised images [N, 3, size, size]."""
        logits: torch.Tensor = self.network(pixel_values=pixel_values).logits.float()
        if self.flip_averaging:
            flipped = self.network(pixel_values=pixel_values.flip(-1)).logits.float()
            logits = (logits + flipped) / 2
        return logits


class Explained(Logits):
    """The same of a ConvNeXt V2, and where an image evidence for each class: Grad-CAM.

    Only the head lies between the last stage and the logits, a mean over the image, a normalisation
    and one linear layer; so the gradients of the logits are a formula, and need no second pass.
    """

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """Of normalised images [N, 3, size, size].

        Returns:
            Logits float32 [N, classes], and cam float32 [N, classes, h, w] at the resolution of
            the last stage, 0 or more, on a scale of its own for each image and class. Where logits
            are averaged over the horizontal flip, cam is of the image as it is.
        """
        logits, cam = self._explained(pixel_values)
        if self.flip_averaging:
            logits = (logits + self._explained(pixel_values.flip(-1))[0]) / 2
        return logits, cam

    def _explained(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        body, head = self.network.convnextv2, self.network.classifier
        stage = body.encoder(body.embeddings(pixel_values)).last_hidden_state
        pooled = stage.mean((-2, -1))
        logits: torch.Tensor = head(body.layernorm(pooled)).float()
        # The gradient of layer normalisation: [N, classes, C].
        centred = pooled - pooled.mean(1, keepdim=True)
        scale = (centred.square().mean(1, keepdim=True) + body.layernorm.eps).sqrt()
        normed = (centred / scale).unsqueeze(1)
        outer = (head.weight * body.layernorm.weight).unsqueeze(0)
        weights = (
            outer - outer.mean(2, keepdim=True) - normed * (outer * normed).mean(2, keepdim=True)
        )
        weights = weights / scale.unsqueeze(1)
        cam = (weights @ stage.flatten(2)).relu()
        return logits, cam.unflatten(2, stage.shape[-2:]).float()


def wrap(network: PreTrainedModel, flip_averaging: bool) -> Logits:
    """What answers by a network, and explains where it can."""
    kind = Explained if isinstance(network, ConvNextV2ForImageClassification) else Logits
    return kind(network, flip_averaging)


class Recorded:
    """A network on CUDA whose kernels are recorded once for each size of batch, then replayed.

    Launched one by one from Python, the kernels of a small batch keep a GPU waiting (CUDA graphs,
    pytorch.org/docs/stable/notes/cuda.html). Batches are filled up to the next power of two, so
    that a service has recorded them all when it has warmed up (:meth:`Predictor.warm_up`). Any
    thread may call it.

    Args:
        network: from a batch to outputs, each with a row an image; without other state.
    """

    def __init__(self, network: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]) -> None:
        self._network = network
        self._recordings: dict[int, _Recording] = {}
        self._lock = threading.Lock()

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The network's outputs for ``pixels`` [N, 3, size, size]."""
        images = len(pixels)
        size = 1 << (images - 1).bit_length()
        with self._lock, torch.cuda.device_of(pixels):  # type: ignore[no-untyped-call]
            if size not in self._recordings:
                self._recordings[size] = self._record(pixels.new_zeros(size, *pixels.shape[1:]))
            recording = self._recordings[size]
            recording.pixels[:images] = pixels
            recording.graph.replay()
            return tuple(output[:images].clone() for output in recording.outputs)

    def _record(self, pixels: torch.Tensor) -> "_Recording":
        # Libraries set themselves up when they are first called, which cannot be recorded.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._network(pixels)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Meanwhile another thread may serve with another network.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = self._network(pixels)
        return _Recording(graph, pixels, outputs)


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    pixels: torch.Tensor
    outputs: tuple[torch.Tensor, ...]


def load(directory: Path) -> PreTrainedModel:
    """The network saved in ``directory``, in eval mode, its weights frozen and held in memory.

    Safetensors only: nothing is unpickled, no code of the directory runs.

    Raises:
        BundleError: it cannot be loaded, or weights are missing.
    """
    try:
        network, loading = AutoModelForImageClassification.from_pretrained(
            directory,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise BundleError(f"{directory} cannot be loaded: {error}") from error
    if missing := sorted(loading["missing_keys"]):
        raise BundleError(f"{directory / WEIGHTS_FILE} lacks {', '.join(missing)}")
    # The weights are mapped from the file; without a copy, a change to it changes the network.
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        tensor.data = tensor.data.clone()
    loaded: PreTrainedModel = network.eval().requires_grad_(False)
    return loaded
