"""From images to class probabilities, the same in the report and in the service."""

import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from cxr_serving.model import bundle, distribution, reference
from cxr_serving.model.bundle import BundleError, BundleRecord
from cxr_serving.model.distribution import Distribution
from cxr_serving.model.preprocessing import Preprocessing

if TYPE_CHECKING:  # torch and transformers take seconds to import, and ONNX Runtime needs neither
    from transformers import PreTrainedModel

Images = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
# Logits [N, classes], and cam [N, classes, h, w] where the network can be explained.
_Forward = Callable[[Images], tuple[Scores, Scores | None]]


class Predictor:
    """A verified bundle, loaded and ready to answer.

    On a CPU, ONNX Runtime computes where the bundle holds the network as ONNX, torch elsewhere.

    Attributes:
        directory: of the bundle.
        record: the bundle's record.
        preprocessing: how an image becomes input of this model.
        reference: what images and answers were like at training, where the bundle tells.
        runtime: what computes.
        warning: why int8 was asked for and does not serve; None when all is as asked for.
    """

    directory: Path
    record: BundleRecord
    preprocessing: Preprocessing
    distribution: Distribution | None
    runtime: Literal["onnx", "onnx-int8", "torch"]
    warning: str | None = None

    def __init__(
        self, directory: Path, device: str = "cpu", threads: int | None = None, int8: bool = False
    ) -> None:
        """Verify and load the bundle in ``directory``; nothing is unpickled.

        Args:
            directory: of the bundle.
            device: ``cpu``, ``mps``, ``cuda`` or ``cuda:<index>``.
            threads: of a forward pass on the CPU; all that this process may use by default. For
                torch, which has one number for the whole process, its own choice by default.
            int8: whether 8-bit integers compute where the bundle holds such a network, and it
                answers the reference images well enough on this machine.

        Raises:
            BundleError: the bundle is broken, or its parts contradict one another.
        """
        self.directory = directory
        self._device = device
        self._threads = threads
        self.record = bundle.verify(directory)
        try:
            self.preprocessing = Preprocessing.read(directory)
            named = json.loads((directory / "config.json").read_text())["id2label"]
            labels = tuple(named[index] for index in sorted(named, key=int))
        except Exception as error:
            raise BundleError(f"{directory} cannot be loaded: {error}") from error
        self._agree(labels, self.record.classes)
        self._agree(self.preprocessing.size, self.record.input_size)
        self.distribution = distribution.read(directory)
        if self.distribution is not None:
            self._agree(len(self.distribution.predictions), len(self.record.classes))
        self._reference = reference.read(directory)
        self._tolerance = reference.TOLERANCE
        if self._reference is not None:
            size, classes = self.record.input_size, len(self.record.classes)
            self._agree(self._reference.images.shape[1:], (size, size))
            self._agree(self._reference.probabilities.shape[1:], (classes,))
        self._forward = self._load(int8)

    def predict(self, images: Images) -> Scores:
        """Classify images that :meth:`Preprocessing.decode` has read.

        Args:
            images: uint8 [N, size, size].

        Returns:
            float32 [N, classes]: calibrated probabilities in class order, each row summing to 1.
        """
        return self.answer(images)[0]

    def answer(self, images: Images) -> tuple[Scores, Scores | None]:
        """Classify images, and tell where they evidence for each class, in one forward pass.

        Args:
            images: uint8 [N, size, size].

        Returns:
            Probabilities as of :meth:`predict`, and cam float32 [N, classes, h, w] as of
            :class:`cxr_serving.model.network.Explained`, or None of a network that is not
            explained.
        """
        logits, cam = self._forward(images)
        return softmax(logits), cam

    def check(self) -> None:
        """Answer the reference images as when the bundle was made, or a black one where it has
        none.

        Raises:
            BundleError: an answer differs by more than the arithmetic in use explains, or is no
                number.
        """
        name = f"{self.record.asset} {self.record.version}"
        if self._reference is None:
            size = self.record.input_size
            if not np.isfinite(self.predict(np.zeros((1, size, size), np.uint8))).all():
                raise BundleError(f"{name} answers a black image with NaN: materialise it again")
            return
        difference = self._reference.difference(self.predict(self._reference.images))
        if not difference <= self._tolerance:  # nan, too
            raise BundleError(
                f"{name} answers its reference images otherwise than when it was made: by "
                f"{difference:.1e} in probability, more than {self._tolerance:g}. Install the "
                "versions in constraints.txt, or materialise the model again"
            )

    def warm_up(self, max_batch: int) -> None:
        """Compute once whatever a batch of 1 to ``max_batch`` images will need.

        Of these sizes, each power of two and ``max_batch`` itself: memory is claimed up to the
        largest, and what is recorded on CUDA, filled up to the next power of two, is so for all.
        """
        size = self.record.input_size
        powers = (1 << exponent for exponent in range((max_batch - 1).bit_length()))
        for number in (*powers, max_batch):
            self.predict(np.zeros((number, size, size), np.uint8))

    @cached_property
    def model(self) -> "PreTrainedModel":
        """The network in torch, in eval mode, on the device; loaded when first asked for.

        Raises:
            BundleError: the bundle is broken, or has changed or is gone since it was verified.
        """
        from cxr_serving.model import network

        if bundle.verify(self.directory) != self.record:
            raise BundleError(f"{self.directory} is another bundle than the one that was loaded")
        return network.load(self.directory).to(self._device)

    def _agree(self, found: object, recorded: object) -> None:
        if found != recorded:
            raise BundleError(
                f"{self.directory} contradicts itself: {found} in the model's configuration, "
                f"{recorded} in {bundle.RECORD_FILE}"
            )

    def _load(self, int8: bool) -> _Forward:
        exported = self._device == "cpu" and bundle.ONNX_FILE in self.record.files
        if int8:
            reason = "there is none for this bundle or device"
            told = self.record.int8
            if exported and told is not None and told.accepted and self._reference is not None:
                forward = self._int8()
                difference = self._reference.difference(softmax(forward(self._reference.images)[0]))
                if difference <= reference.INT8_TOLERANCE:
                    self.runtime = "onnx-int8"
                    self._tolerance = reference.INT8_TOLERANCE
                    return forward
                reason = (
                    "on this machine it answers the reference images differently, by "
                    f"{difference:.2g} in probability"
                )
            self.warning = f"fp32 serves, though int8 was asked for: {reason}"
        if exported:
            self.runtime = "onnx"
            return self._onnx(bundle.ONNX_FILE)
        self.runtime = "torch"
        return self._torch()

    def _onnx(self, name: str) -> _Forward:
        path = self.directory / name
        try:
            network = OnnxNetwork(path, self.preprocessing, self._threads or cores())
        except Exception as error:
            raise BundleError(f"{path} cannot be loaded: {error}") from error
        size = self.record.input_size
        self._agree(network.input_shape, [3, size, size])
        self._agree(network.output_shape, [len(self.record.classes)])
        return network

    def _int8(self) -> _Forward:
        forward = self._onnx(bundle.INT8_FILE)

        def one_by_one(images: Images) -> tuple[Scores, Scores | None]:
            # Activations are rounded to steps that fit a whole batch: among others, an image would
            # be answered otherwise than alone.
            logits, cam = zip(*(forward(image[np.newaxis]) for image in images), strict=True)
            return np.concatenate(logits), None if cam[0] is None else np.concatenate(cam)

        return one_by_one

    def _torch(self) -> _Forward:
        import torch

        from cxr_serving.model import network

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        answering = network.wrap(self.model, self.record.flip_averaging)
        kind = torch.device(self._device).type

        def compute(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            answer = answering(pixels)
            return answer if isinstance(answer, tuple) else (answer,)

        def forward_in(dtype: torch.dtype) -> _Forward:
            run = network.Recorded(compute) if kind == "cuda" else compute

            @torch.inference_mode()
            def forward(images: Images) -> tuple[Scores, Scores | None]:
                pixels = self.preprocessing.normalise(torch.tensor(images).to(self._device))
                # A recording must not use a cast of the weights that is freed after it.
                with torch.autocast(
                    kind, torch.bfloat16, enabled=dtype is torch.bfloat16, cache_enabled=False
                ):
                    logits, *cam = run(pixels)
                return logits.cpu().numpy(), cam[0].cpu().numpy() if cam else None

            return forward

        if kind == "cuda":
            # Rounded to 10 bits, convolutions would not meet the tolerance of the reference images.
            torch.backends.cudnn.allow_tf32 = False
            self.model.to(memory_format=torch.channels_last)
            if self._reference is not None:
                forward = forward_in(torch.bfloat16)
                difference = self._reference.difference(softmax(forward(self._reference.images)[0]))
                if difference <= reference.BFLOAT16_TOLERANCE:
                    self._tolerance = reference.BFLOAT16_TOLERANCE
                    return forward
        return forward_in(torch.float32)


class OnnxNetwork:
    """A network in ONNX, ready to compute on the CPU.

    Attributes:
        input_shape: of one normalised image.
        output_shape: of its logits.
    """

    def __init__(self, path: Path, preprocessing: Preprocessing, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._preprocessing = preprocessing
        [pixels], [logits, *_] = self._session.get_inputs(), self._session.get_outputs()
        self._input: str = pixels.name
        self.input_shape: list[int] = pixels.shape[1:]
        self.output_shape: list[int] = logits.shape[1:]

    def __call__(self, images: Images) -> tuple[Scores, Scores | None]:
        """Logits float32 [N, classes] of images uint8 [N, size, size], and cam where it has it."""
        pixels = self._preprocessing.normalise(images)
        logits, *cam = self._session.run(None, {self._input: pixels})
        return logits, cam[0] if cam else None


def cores() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def softmax(logits: Scores) -> Scores:
    """Probabilities of logits, each [N, classes]."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Scores = raised / raised.sum(axis=1, keepdims=True)
    return probabilities
