"""Some of many images, the same ones each time."""

import numpy as np
import numpy.typing as npt


def evenly(length: int, most: int) -> npt.NDArray[np.int64]:
    """At most ``most`` indices below ``length``, evenly spread, with the first and the last."""
    return np.linspace(0, length - 1, min(length, most)).astype(np.int64)
