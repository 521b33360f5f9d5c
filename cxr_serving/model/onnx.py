"""The network of a bundle in ONNX, on the processors."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from cxr_serving.model.preprocessing import Preprocessing

Images = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
# Of a network in ONNX, by name; one that cannot be explained has the first alone.
OUTPUTS = ("logits", "cam", "features")
# All threads of a session compute an image together. Where several images are computed at once, a
# thread that waits for its part of one must leave the processor to the others: it spins for
# microseconds, then sleeps; and parts are small, so that who is awake does most of them.
_THREADS = {"session.intra_op.spin_duration_us": "20", "session.dynamic_block_base": "4"}


class OnnxNetwork:
    """A network in ONNX, ready to compute on the CPU; any thread may call it.

    Attributes:
        input_shape: of one normalised image.
        outputs: shape for one image by name, in order: the first of ``OUTPUTS``.
    """

    def __init__(self, path: Path, preprocessing: Preprocessing, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # an image's memory in one block is a tenth more
        for key, value in _THREADS.items():
            options.add_session_config_entry(key, value)
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._preprocessing = preprocessing
        self._callers = ThreadPoolExecutor(threads, "image")
        [pixels], outputs = self._session.get_inputs(), self._session.get_outputs()
        self._input: str = pixels.name
        self.input_shape: list[int] = pixels.shape[1:]
        self.outputs: dict[str, list[int]] = {output.name: output.shape[1:] for output in outputs}

    def __call__(self, images: Images) -> tuple[Scores, ...]:
        """Of images uint8 [N, size, size], one or more: what :attr:`outputs` names."""
        # One by one, as many at once as there are threads. A batch takes no less time per image,
        # since its intermediate results leave the processor's cache. int8 rounds to steps that fit
        # a whole batch: an image would be answered differently alone and in one.
        answers = self._callers.map(self._answer, images[:, np.newaxis])
        return tuple(np.concatenate(output) for output in zip(*answers, strict=True))

    def _answer(self, image: Images) -> list[Scores]:
        answer: list[Scores] = self._session.run(
            None, {self._input: self._preprocessing.normalise(image)}
        )
        return answer
