"""The golden films of every bundle, and a saved network's answers to films."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch

from cxr_assets.radiographs import phantoms
from cxr_serving import network
from cxr_serving.network import Logits
from cxr_serving.preprocessing import Preprocessing

_FILMS = 8
_SEED = 20260104


@cache
def draw(preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Films of all classes, the same at each call: uint8 [8, size, size]."""
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / "phantoms"
        phantoms.make(drawn, phantoms.MIN_PATIENTS, _SEED)
        return np.stack([preprocessing.decode(p) for p in sorted(drawn.rglob("*.jpeg"))[:_FILMS]])


def ask(
    directory: Path, flip_averaging: bool, films: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """What the network as saved answers, in torch.

    Args:
        directory: holds network and preprocessing in the format of transformers.
        flip_averaging: whether the logits are the mean over a film and its mirror image.
        films: uint8 [N, size, size].

    Returns:
        Probabilities float32 [N, classes].
    """
    logits = Logits(network.load(directory), flip_averaging)
    with torch.inference_mode():
        pixels = Preprocessing.read(directory).normalise(torch.tensor(films))
        answers: npt.NDArray[np.float32] = logits(pixels).softmax(dim=1).numpy()
    return answers
