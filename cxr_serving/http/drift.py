"""Drift of images and answers from those of the validation set."""

from collections import deque

import numpy as np
import numpy.typing as npt

from cxr_serving.http.metrics import Metrics
from cxr_serving.model.distribution import BINS, histogram, psi
from cxr_serving.model.predictor import Predictor

# Fewer images are too noisy; more than the last thousand would hide a recent change.
_FEWEST, _MOST = 50, 1000


class Drift:
    """Compares the last images with the distribution in the bundle; a new model resets it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._version: str | None = None
        self._images: deque[tuple[npt.NDArray[np.int64], int]] = deque()
        self._intensity: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._predictions: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def observe(self, model: Predictor, pixels: npt.NDArray[np.uint8], predicted: int) -> None:
        """Count one answered image.

        Args:
            model: that answered.
            pixels: uint8 [size, size], as the network saw them.
            predicted: index of the most probable class.
        """
        distribution = model.distribution
        if model.record.version != self._version:
            self._begin(model)
        if distribution is None:
            return
        counts = histogram(pixels[None])
        self._images.append((counts, predicted))
        self._intensity += counts
        self._predictions[predicted] += 1
        if len(self._images) > _MOST:
            counts, predicted = self._images.popleft()
            self._intensity -= counts
            self._predictions[predicted] -= 1
        self._metrics.drift_images.set(len(self._images))
        if len(self._images) >= _FEWEST:
            for name, expected, actual in (
                ("intensity", distribution.intensity, self._intensity),
                ("predictions", distribution.predictions, self._predictions),
            ):
                self._metrics.drift_psi.labels(name).set(psi(expected, actual / actual.sum()))

    def _begin(self, model: Predictor) -> None:
        self._version = model.record.version
        self._images.clear()
        self._intensity = np.zeros(BINS, np.int64)
        self._predictions = np.zeros(len(model.record.classes), np.int64)
        self._metrics.drift_psi.clear()
        self._metrics.drift_images.set(0)
