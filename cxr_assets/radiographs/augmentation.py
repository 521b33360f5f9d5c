"""Variation of training films, batched on the training device."""

import math

import torch
from torch import nn

from cxr_assets.experiment import Augmentation


class Variation(nn.Module):
    """Changes of pose, exposure and image processing, as between two children or two scanners.

    Films are mirrored too: side says nothing about the three classes. Few passes over few pixels:
    exposure changes the 256 grey levels rather than the pixels, and all of pose is one resampling.

    Args:
        settings: how much of each.
    """

    def __init__(self, settings: Augmentation) -> None:
        super().__init__()
        self._settings = settings

    @torch.no_grad()
    def forward(self, films: torch.Tensor) -> torch.Tensor:
        """Vary a batch; each film draws its own parameters from torch's global generator.

        Args:
            films: uint8 [N, H, W].

        Returns:
            float32 [N, H, W] on the scale 0..255.
        """
        settings = self._settings
        varied = _expose(films, settings.exposure)
        if settings.detail:
            varied = _process(varied, settings.detail)
        if settings.noise:
            varied = varied + torch.randn_like(varied) * _draw(films, 0, 0.03 * settings.noise)
        if settings.affine or settings.flip:
            varied = _move(varied, settings.affine, settings.flip)
        return varied.clamp(0, 1).mul(255)


def _draw(films: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """One uniform number a film, [N, 1, 1]."""
    return torch.empty(len(films), 1, 1, device=films.device).uniform_(low, high)


def _expose(films: torch.Tensor, strength: float) -> torch.Tensor:
    """Gamma within 1.4, contrast within 30 % and brightness within 15 % at strength 1."""
    levels = torch.linspace(0, 1, 256, device=films.device).expand(len(films), 1, 256)
    if strength:
        gamma = _draw(films, -math.log(1.4), math.log(1.4)).mul(strength).exp()
        contrast = _draw(films, -0.3, 0.3).mul(strength).exp()
        brightness = _draw(films, -0.15, 0.15).mul(strength)
        levels = ((levels**gamma - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    return levels.squeeze(1).gather(1, films.flatten(1).long()).view(films.shape)


def _process(films: torch.Tensor, strength: float) -> torch.Tensor:
    """What a scanner's software does: blurring or sharpening of edges, of local contrast too."""
    height, width = films.shape[-2:]
    channel = films.unsqueeze(1)
    edges = channel - nn.functional.avg_pool2d(channel, 3, 1, 1, count_include_pad=False)
    coarse = nn.functional.avg_pool2d(channel, 8, ceil_mode=True)
    local = channel - nn.functional.interpolate(
        coarse, size=(height, width), mode="bilinear", align_corners=False
    )
    varied = films + edges.squeeze(1) * _draw(films, -1, 1.5) * strength
    return varied + local.squeeze(1) * _draw(films, -0.3, 1) * strength


def _move(films: torch.Tensor, strength: float, flip: float) -> torch.Tensor:
    """Rotation within 8 degrees, shift within 6 % and scale within 10 % at strength 1."""
    number = len(films)
    angle = _draw(films, -1, 1).flatten() * math.radians(8) * strength
    scale, stretch = (1 + _draw(films, -1, 1).flatten() * by * strength for by in (0.1, 0.05))
    mirror = torch.where(torch.rand(number, device=films.device) < flip, -1.0, 1.0)
    shift = _draw(films, -1, 1).flatten(), _draw(films, -1, 1).flatten()
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    across, down = (0.12 * strength * one for one in shift)
    matrix = torch.stack(
        [mirror * stretch * cosine, -sine, across, mirror * sine, cosine / stretch, down], dim=1
    ).view(number, 2, 3)
    grid = nn.functional.affine_grid(matrix, [number, 1, *films.shape[-2:]], align_corners=False)
    moved = nn.functional.grid_sample(films.unsqueeze(1), grid, align_corners=False)
    return moved.squeeze(1)
