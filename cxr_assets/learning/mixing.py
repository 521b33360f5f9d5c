"""Mixup and CutMix."""

import math

import torch

from cxr_assets.radiographs.shard import Shard


def mix(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    mixup: float,
    cutmix: float,
    shard: Shard | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each image of a batch with another one, in half of the batches.

    If both kinds are on, they are equally likely (Zhang et al. 2018, arXiv 1710.09412; Yun et al.
    2019, arXiv 1905.04899). Uses torch's global generator.

    Args:
        inputs: float [N, C, H, W].
        targets: float [N, classes] probabilities.
        mixup: parameter of the Beta distribution of the weights; 0 for no mixup.
        cutmix: parameter of the Beta distribution of the areas; 0 for no cutmix.
        shard: which part of a batch inputs and targets are; None for all of it.

    Returns:
        Inputs and targets, mixed in the same proportion.
    """
    kinds = [kind for kind, parameter in (("mixup", mixup), ("cutmix", cutmix)) if parameter]
    if not kinds or torch.rand(()) < 0.5:
        return inputs, targets
    kind = kinds[int(torch.randint(len(kinds), ()))]
    parameter = torch.tensor(mixup if kind == "mixup" else cutmix)
    share = float(torch.distributions.Beta(parameter, parameter).sample())
    shard = shard or Shard(0, 1, len(inputs))
    others = shard.of(torch.randperm(shard.total, device=inputs.device))
    partners = shard.gathered(inputs)[others]
    if kind == "mixup":
        inputs = torch.lerp(partners, inputs, share)
    else:
        height, width = inputs.shape[-2:]
        side = math.sqrt(1 - share)
        rows, columns = round(height * side), round(width * side)
        top = int(torch.randint(height - rows + 1, ()))
        left = int(torch.randint(width - columns + 1, ()))
        box = (..., slice(top, top + rows), slice(left, left + columns))
        inputs = inputs.clone()
        inputs[box] = partners[box]
        share = 1 - rows * columns / (height * width)
    return inputs, torch.lerp(shard.gathered(targets)[others], targets, share)
