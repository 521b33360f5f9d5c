"""Reference images: synthetic images with the answers of the network at its export.

They travel in the bundle, so that whoever loads it can check that this machine gives the same
answers. They are synthetic because bundles are released, and images of patients never are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cxr_serving.model.bundle import REFERENCE_FILE, BundleError

# Largest difference of a probability that rounding explains.
TOLERANCE = 1e-4
# The same for 8-bit integers, which serve on request only: the most probable class changes only
# where two are nearly equal.
INT8_TOLERANCE = 0.05
# The same for bfloat16, which serves on CUDA wherever it keeps to this.
BFLOAT16_TOLERANCE = 0.01


@dataclass(frozen=True)
class Reference:
    """Reference images and the answers to them.

    Attributes:
        images: uint8 [N, size, size], as the preprocessing of the bundle decodes them.
        probabilities: float32 [N, classes], of the saved network in torch on a CPU.
    """

    images: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]

    def difference(self, probabilities: npt.NDArray[np.float32]) -> float:
        """Largest difference of probabilities [N, classes] from the reference; NaN if one is."""
        return float(np.abs(probabilities - self.probabilities).max())

    def write(self, directory: Path) -> None:
        """Write ``reference.safetensors`` into ``directory``."""
        save_file(
            {"images": self.images, "probabilities": self.probabilities}, directory / REFERENCE_FILE
        )


def read(directory: Path) -> Reference:
    """The reference images of a bundle.

    Raises:
        BundleError: there are none, or the file is broken.
    """
    path = directory / REFERENCE_FILE
    try:
        tensors = load_file(path)
        images, probabilities = tensors["images"], tensors["probabilities"]
    except (OSError, KeyError, SafetensorError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if images.dtype != np.uint8 or images.ndim != 3 or len(images) != len(probabilities):
        raise BundleError(
            f"{path} holds {images.dtype} images {images.shape} and answers {probabilities.shape}"
        )
    return Reference(images, probabilities)
