"""From images to class probabilities, the same in the report and in the service."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from cxr_serving.model import bundle, distribution, extras, memory, processors, reference, store
from cxr_serving.model.bundle import BundleError, BundleRecord
from cxr_serving.model.distribution import Distribution
from cxr_serving.model.gate import Gate, Verdict
from cxr_serving.model.onnx import OUTPUTS, Images, OnnxNetwork, Scores
from cxr_serving.model.preprocessing import Preprocessing

if TYPE_CHECKING:  # a service on a CPU has neither torch nor transformers
    from transformers import PreTrainedModel

# Logits, and what else the network gives: see OUTPUTS.
_Forward = Callable[[Images], tuple[Scores, ...]]


class Answers(NamedTuple):
    """What a model says of N images.

    Attributes:
        probabilities: float32 [N, classes]: calibrated, in class order, each row summing to 1.
        cam: class activation maps float32 [N, classes, h, w] as of
            :class:`cxr_serving.model.network.Explained`; None of a network without.
        verdicts: of the gate on each image; None of a model without one.
    """

    probabilities: Scores
    cam: Scores | None
    verdicts: list[Verdict] | None


class Predictor:
    """A model that is ready to answer: verified, loaded, checked and warmed up.

    On a CPU, ONNX Runtime computes where the bundle holds the network as ONNX, torch elsewhere.

    Attributes:
        directory: of the bundle.
        record: the bundle's record.
        preprocessing: how an image becomes input of this model.
        distribution: of images and predictions at training, where the bundle has it.
        gate: judges whether an image is one to answer, where the bundle has it.
        runtime: what computes.
        max_batch: most images in a forward pass: one of ONNX Runtime.
        warning: why int8 does not serve although it was requested; None otherwise.
    """

    directory: Path
    record: BundleRecord
    preprocessing: Preprocessing
    distribution: Distribution | None
    gate: Gate | None
    runtime: Literal["onnx", "onnx-int8", "torch"]
    max_batch: int
    warning: str | None = None

    def __init__(
        self,
        directory: Path,
        device: str = "cpu",
        threads: int | None = None,
        int8: bool = False,
        max_batch: int = 1,
    ) -> None:
        """Verify and load a bundle, compare its answers to the reference images, and warm up.

        Nothing is unpickled.

        Args:
            directory: of the bundle.
            device: ``cpu``, ``mps``, ``cuda`` or ``cuda:<index>``.
            threads: that compute on the CPU; :func:`processors.count` by default. For torch,
                which has one number for the whole process, its own choice by default.
            int8: whether 8-bit integers compute where the bundle holds such a network, and it
                answers the reference images well enough on this machine.
            max_batch: most images in a forward pass of torch; ONNX Runtime computes one by one.

        Raises:
            BundleError: the bundle is broken, its parts contradict one another, its answers to the
                reference images are not those recorded, or it needs torch, which is not installed.
        """
        self.directory = directory
        self._device = device
        self._threads = threads
        self.record = store.verify(directory)
        self._read()
        self._forward = self._load(int8)
        self.max_batch = max_batch if self.runtime == "torch" else 1
        memory.return_freed()
        self._warm_up()

    def predict(self, images: Images) -> Scores:
        """Classify images that :meth:`Preprocessing.decode` has read.

        Args:
            images: uint8 [N, size, size].

        Returns:
            float32 [N, classes]: calibrated probabilities in class order, each row summing to 1.
        """
        return self.answer(images).probabilities

    def answer(self, images: Images, colour: Sequence[float] | None = None) -> Answers:
        """Classify images, explain the answers and judge the images, in one forward pass.

        Args:
            images: uint8 [N, size, size].
            colour: of each image, as of :class:`~cxr_serving.model.preprocessing.Decoded`; None
                where all are grey.
        """
        logits, *explained = self._forward(images)
        if not explained:
            return Answers(softmax(logits), None, None)
        cam, features = explained
        tints = np.array(colour or [0.0] * len(images), np.float32)
        verdicts = self.gate.judge(images, tints, features) if self.gate else None
        return Answers(softmax(logits), cam, verdicts)

    @cached_property
    def model(self) -> "PreTrainedModel":
        """The network in torch, in eval mode, on the device; loaded on first use.

        Raises:
            BundleError: the bundle is broken, or has changed or disappeared since it was verified;
                or torch is not installed.
        """
        if store.verify(self.directory) != self.record:
            raise BundleError(f"{self.directory} is another bundle than the one that was loaded")
        self._require_torch()
        from cxr_serving.model import network

        return network.load(self.directory).to(self._device)

    def _read(self) -> None:
        try:
            self.preprocessing = Preprocessing.read(self.directory)
            named = json.loads((self.directory / "config.json").read_text(encoding="utf-8"))[
                "id2label"
            ]
            labels = tuple(named[index] for index in sorted(named, key=int))
        except Exception as error:
            raise BundleError(f"{self.directory} cannot be loaded: {error}") from error
        self._agree(labels, self.record.classes)
        self._agree(self.preprocessing.size, self.record.input_size)
        self.distribution = distribution.read(self.directory)
        if self.distribution is not None:
            self._agree(len(self.distribution.predictions), len(self.record.classes))
        self.gate = Gate.read(self.directory)
        self._reference = reference.read(self.directory)
        size, classes = self.record.input_size, len(self.record.classes)
        self._agree(self._reference.images.shape[1:], (size, size))
        self._agree(self._reference.probabilities.shape[1:], (classes,))

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
            recorded = self.record.int8
            if exported and recorded is not None and recorded.accepted:
                forward = self._onnx(bundle.INT8_FILE)
                difference = self._difference(forward)
                if difference <= reference.INT8_TOLERANCE:
                    self.runtime = "onnx-int8"
                    return forward
                reason = (
                    "on this machine it answers the reference images differently, by "
                    f"{difference:.2g} in probability"
                )
            self.warning = f"fp32 serves although int8 was requested: {reason}"
        if exported:
            self.runtime = "onnx"
            return self._checked(self._onnx(bundle.ONNX_FILE))
        self.runtime = "torch"
        return self._torch()

    def _onnx(self, name: str) -> _Forward:
        path = self.directory / name
        try:
            network = OnnxNetwork(path, self.preprocessing, self._threads or processors.count())
        except Exception as error:
            raise BundleError(f"{path} cannot be loaded: {error}") from error
        size = self.record.input_size
        self._agree(network.input_shape, [3, size, size])
        self._agree(network.outputs["logits"], [len(self.record.classes)])
        self._agree(tuple(network.outputs), OUTPUTS[: len(network.outputs)])
        if self.gate:  # without features it would judge nothing
            self._agree(network.outputs.get("features"), [self.gate.features.means.shape[1]])
        return network

    def _torch(self) -> _Forward:
        self._require_torch()
        from cxr_serving.model.network import TorchNetwork

        forward = TorchNetwork(
            self.model, self.record.flip_averaging, self.preprocessing, self._device, self._threads
        )
        if forward.kind == "cuda":
            rounded = forward.in_bfloat16()
            if self._difference(rounded) <= reference.BFLOAT16_TOLERANCE:
                return rounded
        return self._checked(forward)

    def _require_torch(self) -> None:
        if missing := extras.torch_missing():
            how = f"without {bundle.ONNX_FILE}" if self._device == "cpu" else f"on {self._device}"
            raise BundleError(f"{self.directory} computes {how}, which {missing}")

    def _difference(self, forward: _Forward) -> float:
        return self._reference.difference(softmax(forward(self._reference.images)[0]))

    def _checked(self, forward: _Forward) -> _Forward:
        difference = self._difference(forward)
        if not difference <= reference.TOLERANCE:  # nan, too
            raise BundleError(
                f"{self.record.asset} {self.record.version} does not answer its reference images "
                f"as it did when it was made: the difference is {difference:.1e} in probability, "
                f"more than {reference.TOLERANCE:g}. Install the versions in constraints.txt, or "
                "materialise the model again"
            )
        return forward

    def _warm_up(self) -> None:
        """Compute once what a batch of 1 to ``max_batch`` images will need.

        What CUDA records, it records for each power of two (:class:`network.Recorded`). ONNX
        Runtime was warmed up by the check.
        """
        if self.runtime != "torch":
            return
        size = self.record.input_size
        for exponent in range((self.max_batch - 1).bit_length()):
            self.predict(np.zeros((1 << exponent, size, size), np.uint8))
        self.predict(np.zeros((self.max_batch, size, size), np.uint8))


def softmax(logits: Scores) -> Scores:
    """Probabilities of logits, each [N, classes]."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Scores = raised / raised.sum(axis=1, keepdims=True)
    return probabilities
