"""Stochastic depth that drops the same branches however many processes share a batch."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.convnextv2.modeling_convnextv2 import ConvNextV2DropPath

from cxr_assets.radiographs.shard import Shard


class DropPath(nn.Module):
    """Transformers' layer, with its random numbers drawn for the whole batch.

    Args:
        probability: of dropping an image's branch.

    Attributes:
        shard: which part of a batch the next images are.
    """

    shard: Shard

    def __init__(self, probability: float) -> None:
        super().__init__()
        self._kept = 1 - probability

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[N, H, W, C], zero for dropped images and scaled up for the others, in training only."""
        if not self.training:
            return hidden_states
        shape = self.shard.total, *(1 for _ in hidden_states.shape[1:])
        drawn = torch.rand(shape, dtype=hidden_states.dtype, device=hidden_states.device)
        return hidden_states.div(self._kept) * self.shard.of(torch.floor(drawn + self._kept))


def install(network: PreTrainedModel) -> list[DropPath]:
    """Replace every such layer of a transformers network; returns the new ones."""
    layers = []
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, ConvNextV2DropPath):
                layers.append(DropPath(child.drop_prob))
                setattr(module, name, layers[-1])
    return layers
