"""Temperature scaling: one number that calibrates the probabilities of a model."""

import math

import torch
from scipy.optimize import minimize_scalar
from torch import nn

_BOUNDS = (0.05, 20.0)


def temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Temperature that minimises the cross entropy (Guo et al. 2017, arXiv 1706.04599).

    Args:
        logits: float [N, classes], of images that the model was not trained on.
        labels: int64 [N] class indices.

    Returns:
        The number to divide logits by, between 0.05 and 20.
    """

    def cross_entropy(logarithm: float) -> float:
        scaled = logits.double() / math.exp(logarithm)
        return float(nn.functional.cross_entropy(scaled, labels))

    low, high = map(math.log, _BOUNDS)
    return math.exp(minimize_scalar(cross_entropy, bounds=(low, high), method="bounded").x)
