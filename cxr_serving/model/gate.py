"""The gate: whether an image is one that the model should answer.

Fitted at export on training images and on altered versions of them; here it only judges. It tells
images apart from those of the training data, and nothing more: an accepted image may still be
answered wrongly.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cxr_serving.model import descriptor
from cxr_serving.model.bundle import GATE_FILE, BundleError

Reason = Literal[
    "not_chest",
    "rotated_90",
    "rotated_180",
    "rotated_270",
    "inverted",
    "flipped",
    "colour",
    "unlike_training",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
# Clockwise by so many degrees.
Repair = Literal["rotate_90", "rotate_180", "rotate_270", "invert"]

DESCRIPTIONS: dict[Reason, str] = {
    "not_chest": (
        "It does not look like a frontal radiograph of a whole chest: send one that is not cropped."
    ),
    "rotated_90": "The chest is turned clockwise by 90 degrees: send the image upright.",
    "rotated_180": "The chest is upside down: send the image upright.",
    "rotated_270": "The chest is turned clockwise by 270 degrees: send the image upright.",
    "inverted": "Bones are dark and lungs are bright: export the image with bones bright.",
    "flipped": (
        "Left and right look exchanged: check the side marker and how the image was exported."
    ),
    "colour": "The file is in colour, and radiographs are grey: export the original image.",
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

# What is compared with a threshold. What is not accepted as a chest is compared again as if it were
# repaired, so the thresholds of the reasons in REPAIRS are that of "not_chest".
Check = Literal["not_chest", "flipped", "colour", "unlike_training"]
CHECKS: tuple[Check, ...] = get_args(Check)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one image.

    Attributes:
        reasons: for which it is rejected, in the order of ``REASONS``.
    """

    reasons: tuple[Reason, ...]

    @property
    def accepted(self) -> bool:
        """Whether there is no reason to reject it."""
        return not self.reasons

    @property
    def listed(self) -> str:
        """The reasons as a cell of a table holds them."""
        return ";".join(self.reasons)

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
class Likeness:
    """How far points are from those of training images.

    The squared Mahalanobis distance to the nearest mean, where all but the widest directions have
    one variance (probabilistic PCA, doi.org/10.1111/1467-9868.00196), over the number of
    dimensions: about 1 for a training image.

    Attributes:
        means: float32 [K, D].
        axes: float32 [D, M], the widest directions within a class, each with what its variance
            takes off the distance.
        precision: float32 [1], one over the variance in all other directions.
    """

    means: Floats
    axes: Floats
    precision: Floats

    @classmethod
    def to_anything(cls, dimensions: int, means: int = 1, axes: int = 1) -> Self:
        """One to which every point float32 [dimensions] has the distance 0."""
        shapes = (means, dimensions), (dimensions, axes), (1,)
        return cls(*(np.zeros(shape, np.float32) for shape in shapes))

    def distance(self, points: Floats) -> Floats:
        """Distances float32 [N] of points float32 [N, D]."""
        offsets = points[:, np.newaxis] - self.means
        square = np.square(offsets).sum(axis=2) * self.precision
        square -= np.square(offsets @ self.axes).sum(axis=2)
        nearest: Floats = square.min(axis=1) / points.shape[1]
        return nearest


@dataclass(frozen=True)
class Gate:
    """Judges images.

    Two linear functions of the descriptor of an image say whether it shows a chest, upright and
    with bones bright, and whether left and right are exchanged. Distances to the training images,
    by the descriptor and by what the network's linear layer sees, say whether it is like them.

    Attributes:
        chest: float32 [LENGTH]: the lower, the more like a chest.
        side: float32 [LENGTH]: the higher, the more like a chest with left and right exchanged;
            the flipped image has the same value with the other sign.
        picture: of descriptors, with one mean.
        features: of the network's features, with a mean for each class.
        thresholds: float32 [checks], in the order of ``CHECKS``: a value above rejects. Infinite
            for a check that could not be fitted.
    """

    chest: Floats
    side: Floats
    picture: Likeness
    features: Likeness
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
        return self.verdicts(descriptor.describe(images), colour, features)

    def verdicts(self, described: Floats, colour: Floats, features: Floats) -> list[Verdict]:
        """As :meth:`judge`, of descriptors float32 [N, LENGTH]."""
        scores = self.scores(described, colour, features)
        above = np.stack([scores[check] for check in CHECKS], axis=1) > self.thresholds
        verdicts = []
        for row, one in zip(above, described, strict=True):
            found: set[Reason] = {check for check, over in zip(CHECKS, row, strict=True) if over}
            if "not_chest" in found:
                # The other checks take a chest for granted; the colour is that of the file.
                found = {self._what(one[np.newaxis]), *(found & {"colour"})}
            verdicts.append(Verdict(tuple(reason for reason in REASONS if reason in found)))
        return verdicts

    def scores(self, described: Floats, colour: Floats, features: Floats) -> dict[Check, Floats]:
        """What is compared with the thresholds, float32 [N] by check; see :meth:`judge`.

        Returns:
            Log odds, up to a constant, for ``not_chest`` and ``flipped``; that of the file for
            ``colour``; for ``unlike_training`` the sum of the distances of the descriptor and of
            the features (arXiv 1807.03888).
        """
        return {
            "not_chest": described @ self.chest,
            "flipped": described @ self.side,
            "colour": colour,
            "unlike_training": self.picture.distance(described) + self.features.distance(features),
        }

    def _what(self, described: Floats) -> Reason:
        """What an image is that is no upright chest, by its descriptor float32 [1, LENGTH]."""
        versions: dict[Reason, Floats] = {
            "rotated_90": descriptor.turned(described, 3),
            "rotated_180": descriptor.turned(described, 2),
            "rotated_270": descriptor.turned(described, 1),
            "inverted": descriptor.inverted(described),
        }
        values = {reason: float((one @ self.chest)[0]) for reason, one in versions.items()}
        best = min(values, key=lambda reason: values[reason])
        return best if values[best] <= self.thresholds[CHECKS.index("not_chest")] else "not_chest"

    def write(self, directory: Path) -> None:
        """Write ``gate.safetensors`` into ``directory``."""
        tensors = {f"picture.{name}": tensor for name, tensor in vars(self.picture).items()}
        tensors |= {f"features.{name}": tensor for name, tensor in vars(self.features).items()}
        tensors |= {name: getattr(self, name) for name in ("chest", "side", "thresholds")}
        # safetensors writes the memory of an array as if it were in the order of C.
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
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
            tensors = load_file(path)
            picture, features = (
                Likeness(*(tensors[f"{of}.{name}"] for name in ("means", "axes", "precision")))
                for of in ("picture", "features")
            )
            gate = cls(tensors["chest"], tensors["side"], picture, features, tensors["thresholds"])
        except (OSError, SafetensorError, KeyError) as error:
            raise BundleError(f"{path} cannot be read: {error}") from error
        if gate.thresholds.shape != (len(CHECKS),) or gate.chest.shape != (descriptor.LENGTH,):
            raise BundleError(
                f"{path} has other checks than this code: materialise the model again"
            )
        return gate
