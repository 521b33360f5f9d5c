"""The gate: whether an image is one that the model should answer.

Fitted at export on training images and on altered versions of them; here it only judges. It tells
images apart from those of the training data, and nothing more: an accepted image may still be
answered wrongly.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cxr_serving.model.bundle import GATE_FILE, BundleError
from cxr_serving.model.descriptor import describe

Reason = Literal[
    "not_chest",
    "colour",
    "rotated_90",
    "rotated_180",
    "rotated_270",
    "inverted",
    "flipped",
    "cropped",
    "unlike_training",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
# Clockwise by so many degrees.
Repair = Literal["rotate_90", "rotate_180", "rotate_270", "invert"]

DESCRIPTIONS: dict[Reason, str] = {
    "not_chest": "It does not look like a frontal chest radiograph: send one.",
    "colour": "The file is in colour, and radiographs are grey: export the original image.",
    "rotated_90": "The chest is turned clockwise by 90 degrees: send the image upright.",
    "rotated_180": "The chest is upside down: send the image upright.",
    "rotated_270": "The chest is turned clockwise by 270 degrees: send the image upright.",
    "inverted": "Bones are dark and lungs are bright: export the image with bones bright.",
    "flipped": (
        "Left and right look exchanged: check the side marker and how the image was exported."
    ),
    "cropped": "It shows only a part of the chest: send the whole image.",
    "unlike_training": (
        "The model has not been trained on images like this one: do not rely on its answer."
    ),
}
REPAIRS: dict[Reason, Repair] = {
    "rotated_90": "rotate_270",
    "rotated_180": "rotate_180",
    "rotated_270": "rotate_90",
    "inverted": "invert",
}

# Reasons that are learnt, as classes after that of an image as it should be.
LEARNT: tuple[Reason, ...] = (
    "not_chest",
    "rotated_90",
    "rotated_180",
    "rotated_270",
    "inverted",
    "flipped",
    "cropped",
)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one image.

    Attributes:
        reasons: for which it is rejected, in the order of ``REASONS``.
        repair: what would make it readable, if anything would.
    """

    reasons: tuple[Reason, ...]

    @property
    def accepted(self) -> bool:
        """Whether there is no reason to reject it."""
        return not self.reasons

    @property
    def repair(self) -> Repair | None:
        """What would make it readable, if anything would."""
        return next((REPAIRS[reason] for reason in self.reasons if reason in REPAIRS), None)


def explain(reasons: Iterable[Reason]) -> str:
    """The reasons in sentences, each with its remedy."""
    return " ".join(DESCRIPTIONS[reason] for reason in reasons)


def repaired(pixels: npt.NDArray[np.uint8], repair: Repair) -> npt.NDArray[np.uint8]:
    """An image uint8 [size, size] after a repair, of the same shape."""
    if repair == "invert":
        return 255 - pixels
    return np.ascontiguousarray(np.rot90(pixels, -int(repair.removeprefix("rotate_")) // 90))


@dataclass(frozen=True)
class Gate:
    """Judges images.

    Attributes:
        weights: float32 [1 + L, D], of a linear classifier of descriptors: as it should be, then
            the L reasons ``LEARNT``.
        bias: float32 [1 + L].
        means: float32 [classes, C], of the network's features by class.
        whitening: float32 [C, C], that makes their covariance within a class the identity.
        thresholds: float32 [reasons], in the order of ``REASONS``: a score above it rejects.
            Infinite for a check that could not be fitted.
    """

    weights: Floats
    bias: Floats
    means: Floats
    whitening: Floats
    thresholds: Floats

    def judge(
        self, images: npt.NDArray[np.uint8], colour: Floats, features: Floats
    ) -> list[Verdict]:
        """Judge images.

        Args:
            images: uint8 [N, size, size].
            colour: float32 [N], as of :class:`cxr_serving.model.preprocessing.Decoded`.
            features: float32 [N, C], of the network.
        """
        scores = self.scores(images, colour, features)
        return [self._verdict(row) for row in np.column_stack([scores[name] for name in REASONS])]

    def scores(
        self, images: npt.NDArray[np.uint8], colour: Floats, features: Floats
    ) -> Mapping[Reason, Floats]:
        """What is compared with the thresholds, float32 [N] by reason; see :meth:`judge`.

        Returns:
            For what is learnt the log odds against an image as it should be; for ``colour`` that of
            the file; for ``unlike_training`` the squared Mahalanobis distance to the nearest class
            (arXiv 1807.03888).
        """
        logits = describe(images) @ self.weights.T + self.bias
        odds = (logits[:, 1:] - logits[:, :1]).T
        offsets = (features[:, np.newaxis] - self.means) @ self.whitening
        distance = np.square(offsets).sum(axis=2).min(axis=1)
        return {
            **dict(zip(LEARNT, odds, strict=True)),
            "colour": colour,
            "unlike_training": distance,
        }

    def _verdict(self, scores: Floats) -> Verdict:
        excess = dict(zip(REASONS, (scores - self.thresholds).tolist(), strict=True))
        # One image can be only one of what is learnt.
        learnt = max(LEARNT, key=lambda reason: excess[reason])
        return Verdict(
            tuple(
                reason
                for reason in REASONS
                if excess[reason] > 0 and (reason not in LEARNT or reason == learnt)
            )
        )

    def write(self, directory: Path) -> None:
        """Write ``gate.safetensors`` into ``directory``."""
        # safetensors writes the memory of an array as if it were in the order of C.
        tensors = {name: np.ascontiguousarray(array) for name, array in vars(self).items()}
        save_file(tensors, directory / GATE_FILE)

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The gate in a bundle; None where it has none.

        Raises:
            BundleError: the file is broken, or is of another version of this code.
        """
        path = directory / GATE_FILE
        if not path.exists():
            return None
        try:
            gate = cls(**load_file(path))
        except (OSError, SafetensorError, TypeError) as error:
            raise BundleError(f"{path} cannot be read: {error}") from error
        if gate.thresholds.shape != (len(REASONS),) or len(gate.weights) != 1 + len(LEARNT):
            raise BundleError(
                f"{path} has other checks than this code: materialise the model again"
            )
        return gate
