"""Gates for bundles of tests: one says what a test wants, one knows a synthetic radiograph."""

from functools import cache

import numpy as np
from PIL import Image

from cxr_assets.radiographs import anatomy
from cxr_serving.model import descriptor
from cxr_serving.model.bundle import GateRecord, Rejections
from cxr_serving.model.gate import CHECKS, Check, Gate, Likeness

RECORD = GateRecord(training=1, validation=Rejections.of(2, 250), checks={})


def rejecting(*checks: Check, features: int = 8) -> Gate:
    """Rejects every image for these reasons; without one it accepts all.

    Args:
        checks: ``not_chest`` hides all others but ``colour``.
        features: of the network that it is for.
    """
    zero = np.zeros(descriptor.LENGTH, np.float32)
    limits = np.array([-1 if check in checks else np.inf for check in CHECKS], np.float32)
    return Gate(
        zero, zero, Likeness.to_anything(descriptor.LENGTH), Likeness.to_anything(features), limits
    )


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
    upright = np.asarray(radiograph().resize((size, size), Image.Resampling.BICUBIC))
    known = descriptor.describe(upright[np.newaxis])
    flipped = descriptor.flipped(known)
    template = (known + flipped)[0] / np.linalg.norm(known + flipped)
    limits = {"not_chest": -0.95 * float(known[0] @ template), "flipped": 0.0, "colour": 0.06}
    return Gate(
        chest=-template,
        side=(flipped - known)[0],
        picture=Likeness.to_anything(descriptor.LENGTH),
        features=Likeness.to_anything(features),
        thresholds=np.array([limits.get(check, np.inf) for check in CHECKS], np.float32),
    )
