"""What the peers share: an image read and a plain ONNX network run as a skilled user would.

It knows nothing of this project, whose packages are not used by the peers.
"""

import os
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float32]

_SIZE = 224
_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
_STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


def decode(file: BinaryIO) -> Array:
    """The network's input [3, 224, 224] from a file."""
    # Resized before it becomes colour, which is a third of the work.
    image = Image.open(file).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC).convert("RGB")
    pixels: Array = (
        np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255) - _MEAN
    ) / _STD
    return pixels


class Network:
    """A network in ONNX on the CPU.

    Args:
        path: of the file.
        workers: processes that share the processors.
    """

    def __init__(self, path: str, workers: int = 1) -> None:
        # Here, because the peer with torch need not pay for it.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, len(os.sched_getaffinity(0)) // workers)
        self._session = onnxruntime.InferenceSession(path, options)

    def __call__(self, pixels: Array) -> Array:
        """Probabilities [N, classes] of [N, 3, 224, 224], or of one image without N."""
        [logits] = self._session.run(None, {"pixel_values": pixels.reshape(-1, 3, _SIZE, _SIZE)})
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = raised / raised.sum(axis=1, keepdims=True)
        return probabilities
