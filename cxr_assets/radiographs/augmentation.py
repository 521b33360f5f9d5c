"""Augmentation of training images, batched on the training device."""

import math

import torch
from torch import nn

from cxr_assets.experiment import Augmentation
from cxr_assets.radiographs.shard import Shard


class Augmenter(nn.Module):
    """Changes of pose, exposure and image processing, as between patients and between scanners.

    Horizontal flips are included, so no class may depend on the side. It is fast: exposure
    changes the 256 grey levels instead of the pixels, and pose is a single resampling.

    Args:
        settings: strength of each change.
    """

    def __init__(self, settings: Augmentation) -> None:
        super().__init__()
        self._settings = settings

    @torch.no_grad()
    def forward(
        self, images: torch.Tensor, side: int | None = None, shard: Shard | None = None
    ) -> torch.Tensor:
        """Augment a batch, with random parameters per image from torch's global generator.

        Args:
            images: uint8 [N, H, W].
            side: of the result, in pixels; None for H and W. The change of pose resamples to it, so
                that a smaller image costs less. Nothing is smoothed before, for which it must be at
                least about half of H and W: there, on radiographs of 160 and 224 px, the result is
                within 5 grey levels (root mean square) of that of pooling.
            shard: which part of a batch the images are; None for all of it.

        Returns:
            float32 [N, side, side] on the scale 0..255.
        """
        height, width = (side, side) if side else images.shape[1:]
        settings = self._settings
        draw = _Draw(shard or Shard(0, 1, len(images)), images.device)
        varied = _expose(images, draw, settings.exposure)
        if settings.detail:
            varied = _process(varied, draw, settings.detail)
        if settings.noise:
            varied.addcmul_(draw.normal(varied), draw(0, 255 * 0.03 * settings.noise))
        if settings.affine or settings.flip or (height, width) != images.shape[1:]:
            varied = _move(varied, draw, settings.affine, settings.flip, height, width)
        if settings.collimation:
            varied = _collimate(varied, draw, settings.collimation)
        return varied.clamp_(0, 255)


class _Draw:
    """Random numbers for the images of a shard."""

    def __init__(self, shard: Shard, device: torch.device) -> None:
        self._shard = shard
        self._device = device

    def __call__(self, low: float, high: float) -> torch.Tensor:
        """One uniform number per image, [N, 1, 1]."""
        whole = torch.empty(self._shard.total, 1, 1, device=self._device)
        return self._shard.of(whole.uniform_(low, high))

    def normal(self, images: torch.Tensor) -> torch.Tensor:
        """One standard normal number per pixel of images [N, H, W]."""
        shape = self._shard.total, *images.shape[1:]
        return self._shard.of(torch.randn(shape, device=self._device))


def _expose(images: torch.Tensor, draw: _Draw, strength: float) -> torch.Tensor:
    """Gamma within 1.4, contrast within 30 % and brightness within 15 % at strength 1."""
    levels = torch.linspace(0, 1, 256, device=images.device).expand(len(images), 1, 256)
    if strength:
        gamma = draw(-math.log(1.4), math.log(1.4)).mul(strength).exp()
        contrast = draw(-0.3, 0.3).mul(strength).exp()
        brightness = draw(-0.15, 0.15).mul(strength)
        levels = ((levels**gamma - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    levels = levels.mul(255).squeeze(1)
    return levels.gather(1, images.flatten(1).long()).view(images.shape)


def _process(images: torch.Tensor, draw: _Draw, strength: float) -> torch.Tensor:
    """What scanner software does: blur or sharpen edges, change local contrast."""
    edges = draw(-1, 1.5) * strength
    local = draw(-0.3, 1) * strength
    # images + edges * (images - mean of 3 x 3 pixels) + local * images, with one filter per image.
    filters = (-edges / 9).expand(-1, 3, 3).clone()
    filters[:, 1:2, 1:2] += 1 + edges + local
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="replicate").unsqueeze(0)
    varied = nn.functional.conv2d(padded, filters.unsqueeze(1), groups=len(images)).squeeze(0)
    # - local * smooth images: averaged to an eighth of the size and enlarged bilinearly. On a CPU,
    # two small matrix products are several times faster than pooling and interpolation.
    rows, columns = (_smoothing(size, images.device) for size in images.shape[-2:])
    (shrink_rows, enlarge_rows), (shrink_columns, enlarge_columns) = rows, columns
    coarse = (shrink_rows @ images @ shrink_columns.T).mul_(-local)
    return varied.baddbmm_(enlarge_rows.expand(len(images), -1, -1), coarse @ enlarge_columns.T)


def _smoothing(size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices: [size / 8, size] averages, [size, size / 8] interpolates."""
    shrink = nn.functional.avg_pool1d(torch.eye(size, device=device), 8, ceil_mode=True).T
    cells = torch.eye(len(shrink), device=device).unsqueeze(0)
    return shrink, nn.functional.interpolate(cells, size=size, mode="linear")[0].T


def _move(
    images: torch.Tensor, draw: _Draw, strength: float, flip: float, height: int, width: int
) -> torch.Tensor:
    """Rotation within 8 degrees, shift within 6 % and scale within 10 % at strength 1."""
    angle = draw(-1, 1) * math.radians(8) * strength
    scale, stretch = (1 + draw(-1, 1) * by * strength for by in (0.1, 0.05))
    side = torch.where(draw(0, 1) < flip, -1.0, 1.0)
    across, down = (0.12 * strength * draw(-1, 1) for _ in range(2))
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    # Source position of each pixel, in -1..1: as torch's affine_grid, but faster, axis by axis.
    y, x = (
        (torch.arange(size, device=images.device) * 2 + 1) / size - 1 for size in (height, width)
    )
    x, y = x.view(1, 1, -1), y.view(1, -1, 1)
    grid = torch.empty(len(images), 2, height, width, device=images.device)
    torch.add(side * stretch * cosine * x, across - sine * y, out=grid[:, 0])
    torch.add(side * sine * x, down + cosine / stretch * y, out=grid[:, 1])
    moved = nn.functional.grid_sample(
        images.unsqueeze(1), grid.permute(0, 2, 3, 1), align_corners=False
    )
    return moved.squeeze(1)


def _collimate(images: torch.Tensor, draw: _Draw, strength: float) -> torch.Tensor:
    """Black borders, as a collimator leaves: each side has one with probability 1/2.

    It is up to 12 % of the image wide at strength 1.
    """
    top, bottom, left, right = ((draw(0, 1) < 0.5) * draw(0, 0.12 * strength) for _ in range(4))
    y, x = ((torch.arange(size, device=images.device) + 0.5) / size for size in images.shape[1:])
    y, x = y.view(1, -1, 1), x.view(1, 1, -1)
    return images.masked_fill((y < top) | (y > 1 - bottom) | (x < left) | (x > 1 - right), 0)
