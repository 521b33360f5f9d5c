"""Variation of training films, batched on the training device."""

import torch
from kornia.augmentation import (
    AugmentationSequential,
    RandomAffine,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomHorizontalFlip,
)
from torch import nn


class Augmentation(nn.Module):
    """Small changes of pose and exposure, as between two films of the same child.

    Films are mirrored too: side says nothing about the three classes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._variations = AugmentationSequential(
            RandomHorizontalFlip(p=0.5),
            RandomAffine(degrees=8, translate=(0.06, 0.06), scale=(0.9, 1.1), p=0.9),
            RandomGamma(gamma=(0.7, 1.4), p=0.5),
            RandomContrast(contrast=(0.7, 1.3), p=0.5),
            RandomBrightness(brightness=(0.85, 1.15), p=0.5),
            data_keys=["input"],
        )

    @torch.no_grad()
    def forward(self, films: torch.Tensor) -> torch.Tensor:
        """Vary a batch; each film draws its own parameters from torch's global generator.

        Args:
            films: uint8 [N, H, W].

        Returns:
            float32 [N, H, W] on the scale 0..255.
        """
        varied: torch.Tensor = self._variations(films.float().div(255).unsqueeze(1))
        return varied.squeeze(1).mul(255)
