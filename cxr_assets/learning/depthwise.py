"""Depthwise convolution with a faster gradient of its filters on a CPU."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d


class DepthwiseConvolution(nn.Module):
    """A depthwise convolution that keeps the size, with the parameters of torch's layer.

    Args:
        convolution: of stride 1 and odd filters, padded with half their side.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self._padding = convolution.padding

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to the same shape."""
        channels = len(self.weight)
        if images.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            output: torch.Tensor = _Function.apply(  # type: ignore[no-untyped-call]
                images, self.weight, self.bias, self._padding
            )
            return output
        return conv2d(images, self.weight, self.bias, padding=self._padding, groups=channels)


def install(network: nn.Module) -> None:
    """Replace every depthwise convolution of a ConvNeXt; weights keep their names."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and child.groups > 1:
                setattr(module, name, DepthwiseConvolution(child))


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        images: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        padding: tuple[int, int],
    ) -> torch.Tensor:
        context.save_for_backward(images, weight)
        context.padding = padding
        return conv2d(images, weight, bias, padding=padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        (gradient,) = gradients
        number, channels = images.shape[:2]
        by_images = conv2d(gradient, weight.flip(2, 3), padding=ctx.padding, groups=channels)
        # oneDNN has no kernel of its own for the gradient by depthwise filters: it pads each to 16
        # x 16 channels. But that gradient is a depthwise convolution, too, of the input with the
        # output's gradient as the filter, over N * C channels, and for that there is a fast one.
        inputs, filters = (whole.permute(2, 3, 0, 1).flatten(2) for whole in (images, gradient))
        by_weight = conv2d(
            inputs.permute(2, 0, 1).unsqueeze(0),
            filters.permute(2, 0, 1).unsqueeze(1),
            padding=ctx.padding,
            groups=number * channels,
        )
        by_weight = by_weight.view(number, *weight.shape).sum(dim=0)
        return by_images, by_weight, gradient.sum(dim=(0, 2, 3)), None
