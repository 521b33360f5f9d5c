"""A gate that says what a test wants."""

from collections.abc import Collection

import numpy as np

from cxr_serving.model.descriptor import describe
from cxr_serving.model.gate import LEARNT, REASONS, Gate, Reason


def rejecting(*reasons: Reason, features: int = 8, classes: int = 3) -> Gate:
    """Rejects every image for these reasons, of which one at most may be learnt; none: accepts all.

    Args:
        reasons: to give.
        features: of the network that it is for.
        classes: of that network.
    """
    descriptors = describe(np.zeros((1, 32, 32), np.uint8)).shape[1]
    return Gate(
        weights=np.zeros((1 + len(LEARNT), descriptors), np.float32),
        bias=np.zeros(1 + len(LEARNT), np.float32),
        means=np.zeros((classes, features), np.float32),
        whitening=np.eye(features, dtype=np.float32),
        thresholds=thresholds(reasons),
    )


def thresholds(reasons: Collection[Reason]) -> np.ndarray:
    return np.array([-1 if one in reasons else np.inf for one in REASONS], np.float32)
