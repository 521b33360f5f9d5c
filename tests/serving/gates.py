"""Gates for bundles of tests: one says what a test wants, one knows a synthetic radiograph."""

from collections.abc import Collection
from functools import cache

import numpy as np
from PIL import Image

from cxr_assets.radiographs import alteration, anatomy
from cxr_assets.radiographs.alteration import EXPECTED
from cxr_serving.model.bundle import GateRecord, Rejections
from cxr_serving.model.descriptor import describe
from cxr_serving.model.gate import LEARNT, REASONS, Gate, Reason

RECORD = GateRecord(training=1, validation=Rejections.of(2, 250), checks={})


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


@cache
def radiograph() -> Image.Image:
    """A synthetic image of 150 x 120 pixels."""
    rng = np.random.default_rng(4)
    exposed = anatomy.expose(anatomy.Anatomy.sample(rng), "normal", rng)
    return exposed.resize((150, 120), Image.Resampling.BICUBIC)


def knowing(size: int, features: int = 8) -> Gate:
    """Accepts :func:`radiograph`, and sees when it is altered or in colour; others it may reject.

    Args:
        size: of the network's input, in pixels.
        features: of the network that it is for.
    """
    upright = np.asarray(radiograph().resize((size, size), Image.Resampling.BICUBIC))[np.newaxis]
    kinds = {reason: kind for kind, reason in EXPECTED.items()}
    seen = [upright, *(alteration.apply(kinds[reason], upright, 0) for reason in LEARNT)]
    # Up to a constant the logits are half the squared distances from these, negative.
    templates = describe(np.concatenate(seen))
    limits = {"colour": 0.06, "unlike_training": np.inf}
    return Gate(
        weights=templates,
        bias=-np.square(templates).sum(axis=1) / 2,
        means=np.zeros((1, features), np.float32),
        whitening=np.zeros((features, features), np.float32),
        thresholds=np.array([limits.get(reason, 0.0) for reason in REASONS], np.float32),
    )
