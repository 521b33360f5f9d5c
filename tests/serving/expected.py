"""What the service should answer, without the service."""

from pathlib import Path

import numpy as np

from cxr_serving.model.predictor import Predictor


def probabilities(directory: Path, image: bytes) -> list[float]:
    """In class order, from the bundle in ``directory``."""
    predictor = Predictor(directory)
    pixels = predictor.preprocessing.decode(image).pixels
    found: list[float] = predictor.predict(np.stack([pixels]))[0].tolist()
    return found
