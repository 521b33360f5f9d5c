"""The reference images of every bundle, and the saved network's answers to them."""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cxr_assets.radiographs import naming, synthesis
from cxr_serving.model import network
from cxr_serving.model.network import Logits
from cxr_serving.model.preprocessing import Preprocessing
from cxr_serving.model.reference import Reference

_IMAGES = 8
_SEED = 20260104


@cache
def _images(preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Synthetic images of all classes, the same in every call: uint8 [8, size, size]."""
    # Without a folder, which a kill would leave for good.
    made = synthesis.encoded(len(naming.SPLITS), _SEED)
    return np.stack([preprocessing.decode(made[path]).pixels for path in sorted(made)[:_IMAGES]])


class Saved:
    """A saved network, run by torch.

    Args:
        directory: with network and preprocessing in the format of transformers.
        flip_averaging: whether the logits are the mean over an image and its horizontal flip.
    """

    def __init__(self, directory: Path, flip_averaging: bool) -> None:
        self._logits = Logits(network.load(directory), flip_averaging)
        self._preprocessing = Preprocessing.read(directory)

    @torch.inference_mode()
    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities float32 [N, classes] of images uint8 [N, size, size]."""
        pixels = self._preprocessing.normalise(torch.tensor(images))
        answers: npt.NDArray[np.float32] = self._logits(pixels).softmax(dim=1).numpy()
        return answers

    def reference(self) -> Reference:
        """The reference images with this network's answers."""
        images = _images(self._preprocessing)
        return Reference(images, self.predict(images))
