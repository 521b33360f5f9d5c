"""Distribution of grey levels and predictions at training, and the drift of later ones from it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxr_serving.model.bundle import DISTRIBUTION_FILE, BundleError

BINS = 16
# An empty bin on one side alone would make the index infinite.
_FLOOR = 1e-4

Share = Annotated[float, Field(ge=0, le=1)]


class Distribution(BaseModel):
    """The contents of ``distribution.json``, measured on the validation images.

    Attributes:
        images: their number.
        intensity: share of their pixels, at input size, in each of 16 equal-width bins of 0..255.
        predictions: share of the images for which each class is the most probable, in class order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int = Field(gt=0)
    intensity: tuple[Share, ...] = Field(min_length=BINS, max_length=BINS)
    predictions: tuple[Share, ...]

    @classmethod
    def of(
        cls,
        images: Iterable[npt.NDArray[np.uint8]],
        probabilities: npt.NDArray[np.floating[Any]],
    ) -> Self:
        """The distribution of images and of the answers to them.

        Args:
            images: uint8 [..., size, size], one by one or in batches; read once.
            probabilities: [N, classes] of all images.
        """
        intensity = sum((histogram(some) for some in images), np.zeros(BINS, np.int64))
        answers = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
        return cls(
            images=len(probabilities),
            intensity=tuple((intensity / intensity.sum()).tolist()),
            predictions=tuple((answers / len(probabilities)).tolist()),
        )

    def write(self, directory: Path) -> None:
        """Write ``distribution.json`` into ``directory``."""
        (directory / DISTRIBUTION_FILE).write_text(
            self.model_dump_json(indent=2) + "\n", encoding="utf-8"
        )


def read(directory: Path) -> Distribution | None:
    """The distribution in a bundle; None where it has none.

    Raises:
        BundleError: the file is broken.
    """
    path = directory / DISTRIBUTION_FILE
    if not path.exists():
        return None
    try:
        return Distribution.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error


def histogram(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Pixels of images uint8 [N, size, size] in 16 equal-width bins of 0..255: int64 [16]."""
    greys = np.bincount(images.ravel(), minlength=256)
    bins: npt.NDArray[np.int64] = greys.reshape(BINS, -1).sum(axis=1)
    return bins


def psi(expected: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Population stability index: how far shares have moved, 0 where they have not.

    From 0.1 on a shift counts as moderate, from 0.25 on as large; shares count as 1e-4 at least
    (Siddiqi 2006, Credit Risk Scorecards).

    Args:
        expected: [bins], shares at training, summing to 1.
        actual: [bins], shares today, summing to 1.
    """
    e, a = np.maximum(expected, _FLOOR), np.maximum(actual, _FLOOR)
    return float(((a - e) * np.log(a / e)).sum())
