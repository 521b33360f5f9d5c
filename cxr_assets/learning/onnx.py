"""The network as ONNX, for runtimes without torch."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn
from transformers import AutoModelForImageClassification, PreTrainedModel

from cxr_serving.bundle import ONNX_FILE
from cxr_serving.preprocessing import Preprocessing

# Largest difference of a probability that rounding explains.
_TOLERANCE = 1e-4


class ParityError(Exception):
    """The exported network answers otherwise than the one it was made of."""


class _Logits(nn.Module):
    def __init__(self, network: PreTrainedModel, flip_averaging: bool) -> None:
        super().__init__()
        self._network = network
        self._flip_averaging = flip_averaging

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._network(pixel_values=pixel_values).logits
        if self._flip_averaging:
            logits = (logits + self._network(pixel_values=pixel_values.flip(-1)).logits) / 2
        return logits


def write(directory: Path, flip_averaging: bool, films: npt.NDArray[np.uint8]) -> None:
    """Write ``model.onnx`` beside the saved network, and compare the two.

    Its input is ``pixel_values``, float32 [N, 3, size, size] as ``preprocessor_config.json`` makes
    them, and its output ``logits``, float32 [N, classes], which are averaged over the mirror image
    where the bundle says so. N is free.

    Args:
        directory: holds network and preprocessing in the format of transformers.
        flip_averaging: whether the logits are the mean over a film and its mirror image.
        films: uint8 [N, size, size] to compare on.

    Raises:
        ParityError: a probability differs by more than 1e-4.
    """
    network = AutoModelForImageClassification.from_pretrained(directory, local_files_only=True)
    logits = _Logits(network, flip_averaging).eval()
    pixels = Preprocessing.read(directory).normalise(torch.tensor(films))
    with warnings.catch_warnings():
        # That there is a newer exporter (twenty times as slow for the same graph; torch is pinned),
        # and that sizes are traced as constants, which they are.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            logits,
            (pixels[:1],),
            directory / ONNX_FILE,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes={"pixel_values": {0: "films"}, "logits": {0: "films"}},
            dynamo=False,
        )
    with torch.inference_mode():
        expected = logits(pixels).softmax(dim=1)
    session = onnxruntime.InferenceSession(directory / ONNX_FILE)
    [answer] = session.run(None, {"pixel_values": pixels.numpy()})
    difference = (torch.tensor(answer).softmax(dim=1) - expected).abs().max()
    if not difference <= _TOLERANCE:  # nan, too
        raise ParityError(
            f"{directory / ONNX_FILE} differs from the network by {difference:.1e} in probability "
            f"on {len(films)} films, more than {_TOLERANCE}: nothing was published, the finished "
            "fit is kept. Another version of torch or onnxruntime may have caused it; see "
            "constraints.txt"
        )
