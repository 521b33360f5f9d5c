"""The most confident errors of a model, collected while it answers."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Errors that are kept of each kind.
_EACH = 2


@dataclass(frozen=True)
class Error:
    """An image that the model gets wrong.

    Attributes:
        image: its row among the evaluated images.
        truth: index of its class.
        answer: index of the top-1 class.
        confidence: probability of that class.
        pixels: uint8 [size, size], as the network takes them.
        cam: float32 [h, w], class activation map of ``answer``; None of a network without.
    """

    image: int
    truth: int
    answer: int
    confidence: float
    pixels: npt.NDArray[np.uint8]
    cam: npt.NDArray[np.float32] | None


class ConfidentErrors:
    """The two most confident errors of each kind, a kind being a true and a predicted class.

    Batches are added as they are answered, so that neither pixels nor maps of all images are held.
    """

    def __init__(self, targets: npt.NDArray[np.int64]) -> None:
        """Expect the images of ``targets`` [N], class indices, in that order."""
        self._targets = targets
        self._seen = 0
        self._kept: defaultdict[tuple[int, int], list[Error]] = defaultdict(list)

    def add(
        self,
        pixels: npt.NDArray[np.uint8],
        probabilities: npt.NDArray[np.float32],
        cam: npt.NDArray[np.float32] | None,
    ) -> None:
        """Take the next B images into account.

        Args:
            pixels: uint8 [B, size, size].
            probabilities: float32 [B, C].
            cam: float32 [B, C, h, w], if any.
        """
        answers = probabilities.argmax(axis=1)
        truth = self._targets[self._seen : self._seen + len(pixels)]
        for index in np.flatnonzero(answers != truth):
            kept = self._kept[int(truth[index]), int(answers[index])]
            confidence = float(probabilities[index, answers[index]])
            if len(kept) == _EACH and confidence <= kept[-1].confidence:
                continue
            kept.append(
                Error(
                    image=self._seen + int(index),
                    truth=int(truth[index]),
                    answer=int(answers[index]),
                    confidence=confidence,
                    # A view would keep the whole batch in memory.
                    pixels=pixels[index].copy(),
                    cam=None if cam is None else cam[index, answers[index]].copy(),
                )
            )
            kept.sort(key=lambda error: -error.confidence)
            del kept[_EACH:]
        self._seen += len(pixels)

    def found(self) -> list[Error]:
        """The errors by true class, predicted class and falling confidence."""
        return [error for kind in sorted(self._kept) for error in self._kept[kind]]
