"""The golden films of every bundle, and what a saved network answers."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch

from cxr_assets.radiographs import phantoms
from cxr_serving import network
from cxr_serving.golden import Golden
from cxr_serving.network import Logits
from cxr_serving.preprocessing import Preprocessing

_FILMS = 8
_SEED = 20260104


@cache
def _draw(preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Films of all classes, the same at each call: uint8 [8, size, size]."""
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / "phantoms"
        phantoms.make(drawn, phantoms.MIN_PATIENTS, _SEED)
        return np.stack([preprocessing.decode(p) for p in sorted(drawn.rglob("*.jpeg"))[:_FILMS]])


class Saved:
    """A network as it was saved, in torch.

    Args:
        directory: holds network and preprocessing in the format of transformers.
        flip_averaging: whether the logits are the mean over a film and its mirror image.
    """

    def __init__(self, directory: Path, flip_averaging: bool) -> None:
        self._logits = Logits(network.load(directory), flip_averaging)
        self._preprocessing = Preprocessing.read(directory)

    @torch.inference_mode()
    def predict(self, films: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities float32 [N, classes] of films uint8 [N, size, size]."""
        pixels = self._preprocessing.normalise(torch.tensor(films))
        answers: npt.NDArray[np.float32] = self._logits(pixels).softmax(dim=1).numpy()
        return answers

    def golden(self) -> Golden:
        """The golden films, answered."""
        films = _draw(self._preprocessing)
        return Golden(films, self.predict(films))
