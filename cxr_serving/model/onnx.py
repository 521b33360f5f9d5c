"""The network of a bundle in ONNX, on the processors."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

import numpy as np
import numpy.typing as npt
import onnxruntime

from cxr_serving.model.preprocessing import Preprocessing

Images = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
# Of a network in ONNX, by name; one that cannot be explained has the first alone.
OUTPUTS = ("logits", "cam", "features")
# A thread without work spins for microseconds, then sleeps, which leaves its processor to others;
# and parts of an image are small, so that who is awake does most of them.
_THREADS = {"session.intra_op.spin_duration_us": "20", "session.dynamic_block_base": "4"}


class OnnxNetwork:
    """A network in ONNX, ready to compute on the CPU; any thread may call it.

    Attributes:
        input_shape: of one normalised image.
        outputs: shape for one image by name, in order: the first of ``OUTPUTS``.
    """

    def __init__(self, path: Path, preprocessing: Preprocessing, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # and the caller of `run` is one
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # an image's memory in one block is a tenth more
        for key, value in _THREADS.items():
            options.add_session_config_entry(key, value)
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._preprocessing = preprocessing
        self._callers = ThreadPoolExecutor(threads, "image")
        self._computing = Lock()
        [pixels], outputs = self._session.get_inputs(), self._session.get_outputs()
        self._input: str = pixels.name
        self.input_shape: list[int] = pixels.shape[1:]
        self.outputs: dict[str, list[int]] = {output.name: output.shape[1:] for output in outputs}

    def __call__(self, images: Images) -> tuple[Scores, ...]:
        """Of images uint8 [N, size, size], one or more: what :attr:`outputs` names."""
        # One by one, as many at once as there are threads. A batch takes no less time per image,
        # since its intermediate results leave the processor's cache. int8 rounds to steps that fit
        # a whole batch: an image would be answered differently alone and in one. Not in the main
        # thread, where Ctrl-C could end the session while a thread of it must still answer.
        answers = self._callers.map(self._answer, images[:, np.newaxis])
        return tuple(np.concatenate(output) for output in zip(*answers, strict=True))

    def _answer(self, image: Images) -> list[Scores]:
        # One image is computed here, others by the session's own threads, an image each; a thread
        # that has none helps. Were all computed by callers, the session's threads would help them
        # though every processor is taken: an eighth more work per image.
        feed = {self._input: self._preprocessing.normalise(image)}
        if self._computing.acquire(blocking=False):
            try:
                here: list[Scores] = self._session.run(None, feed)
            finally:
                self._computing.release()
            return here
        # `put` is written in C and holds the interpreter's lock to its end: a session that is
        # dropped at once, which waits for its threads with that lock, finds them done.
        answer: SimpleQueue[list[Scores]] = SimpleQueue()
        self._session.run_async(None, feed, answer.put, None)
        # A pass that fails there gives nothing: the same one, run here, raises its error.
        return answer.get() or self._session.run(None, feed)
