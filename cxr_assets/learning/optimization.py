"""Parameter groups for the optimiser."""

import re
from collections import defaultdict
from typing import Any

from torch import nn
from transformers import PreTrainedModel

_BLOCK = re.compile(r"\bencoder\.stages\.(\d+)\.(?:layers\.(\d+)|downsampling_layer)\.")


def parameter_groups(
    network: PreTrainedModel,
    lr: float,
    layer_decay: float,
    weight_decay: float,
    head: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Groups with learning rates that fall from the head down, and with or without weight decay.

    The stem is the lowest layer, each block is a layer, norm and head are the highest (layer-wise
    decay of Clark et al. 2020, arXiv 2003.10555, as in the fine-tuning of ConvNeXt). Biases, norms
    and other vectors are never decayed.

    Args:
        network: a ConvNeXt V2; parameters that need no gradient are left out.
        lr: of the highest layer.
        layer_decay: factor from each layer to the one below it.
        weight_decay: for matrices and filters.
        head: another one on the network's features, of the highest layer like its own.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``hidden_matrices`` (whether they are
        matrices between stem and head), highest layer first.
    """
    depths: list[int] = network.config.depths
    below = [1 + sum(depths[:stage]) for stage in range(len(depths))]
    top = 1 + sum(depths)

    def layer(name: str) -> int:
        if ".embeddings." in name:
            return 0
        if block := _BLOCK.search(name):
            return below[int(block[1])] + int(block[2] or 0)
        return top

    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = defaultdict(list)
    named = [*network.named_parameters(), *(head.named_parameters() if head is not None else ())]
    for name, parameter in named:
        if parameter.requires_grad:
            rate = lr * layer_decay ** (top - layer(name))
            decay = weight_decay if parameter.squeeze().ndim > 1 else 0.0
            groups[rate, decay, parameter.ndim == 2 and layer(name) < top].append(parameter)
    return [
        {"params": groups[key], "lr": key[0], "weight_decay": key[1], "hidden_matrices": key[2]}
        for key in sorted(groups, reverse=True)
    ]
