"""The network of a bundle in torch: loading, averaging, explaining, and computing on a GPU.

The only module of the service that needs torch and transformers.
"""

import copy
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    ConvNextV2ForImageClassification,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from cxr_serving.model.bundle import WEIGHTS_FILE, BundleError
from cxr_serving.model.preprocessing import Preprocessing

# Loading weights takes milliseconds: a progress bar is noise.
disable_progress_bar()


class Logits(nn.Module):
    """Logits of a network, averaged over the horizontal flip where a bundle says so.

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
    """Logits of a ConvNeXt V2, and class activation maps by Grad-CAM (arXiv 1610.02391).

    Only the head lies between the last stage and the logits: a mean over the image, a normalisation
    and one linear layer. So the gradients of the logits are a formula, and need no second pass.
    """

    def forward(  # type: ignore[override]
        self, pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of normalised images [N, 3, size, size].

        Returns:
            Logits float32 [N, classes]; cam float32 [N, classes, h, w] at the resolution of the
            last stage, 0 or more, on a scale of its own for each image and class; features float32
            [N, C], what the linear layer sees. Where logits are averaged over the horizontal flip,
            cam and features are those of the unflipped image.
        """
        logits, cam, features = self._explained(pixel_values)
        if self.flip_averaging:
            logits = (logits + self._explained(pixel_values.flip(-1))[0]) / 2
        return logits, cam, features

    def _explained(
        self, pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        body, head = self.network.convnextv2, self.network.classifier
        stage = body.encoder(body.embeddings(pixel_values)).last_hidden_state
        pooled = stage.mean((-2, -1))
        features = body.layernorm(pooled)
        logits: torch.Tensor = head(features).float()
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
        return logits, cam.unflatten(2, stage.shape[-2:]).float(), features.float()


def wrap(network: PreTrainedModel, flip_averaging: bool) -> Logits:
    """A network that answers as its bundle says, and explains its answers where it can."""
    kind = Explained if isinstance(network, ConvNextV2ForImageClassification) else Logits
    return kind(network, flip_averaging)


class TorchNetwork:
    """A network in torch, ready to compute on a device.

    Attributes:
        kind: of device, as ``cuda``.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        flip_averaging: bool,
        preprocessing: Preprocessing,
        device: str,
        threads: int | None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.kind = torch.device(device).type
        self._preprocessing = preprocessing
        self._device = device
        self._answering = wrap(network, flip_averaging)
        self._dtype = torch.float32
        if self.kind == "cuda":
            # Rounded to 10 bits, convolutions would not meet the tolerance of the reference images.
            torch.backends.cudnn.allow_tf32 = False
            network.to(memory_format=torch.channels_last)
        self._run = self._new_run()

    def in_bfloat16(self) -> "TorchNetwork":
        """The same network, computing in bfloat16 where autocast does."""
        other = copy.copy(self)
        other._dtype = torch.bfloat16
        other._run = other._new_run()
        return other

    @torch.inference_mode()
    def __call__(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], ...]:
        """Of images uint8 [N, size, size]: what :class:`Logits` or :class:`Explained` gives."""
        pixels = self._preprocessing.normalise(torch.tensor(images).to(self._device))
        # A recording must not use a cast of the weights that is freed after it.
        with torch.autocast(
            self.kind,
            torch.bfloat16,
            enabled=self._dtype is torch.bfloat16,
            cache_enabled=False,
        ):
            return tuple(output.cpu().numpy() for output in self._run(pixels))

    def _new_run(self) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
        return Recorded(self._compute) if self.kind == "cuda" else self._compute

    def _compute(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answer = self._answering(pixels)
        return answer if isinstance(answer, tuple) else (answer,)


class Recorded:
    """A network on CUDA whose kernels are recorded once for each size of batch, then replayed.

    Launched one by one from Python, the kernels of a small batch keep a GPU waiting (CUDA graphs,
    pytorch.org/docs/stable/notes/cuda.html). Batches are padded to the next power of two, so that
    all sizes are recorded once a predictor has warmed up. Any thread may call it.

    Args:
        network: from a batch to outputs, each with one row per image; without other state.
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
        # Libraries initialise themselves on the first call, which cannot be recorded.
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
