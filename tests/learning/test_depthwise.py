import pytest
import torch
from tiny import CLASSES
from torch import nn
from transformers import ConvNextV2ForImageClassification

from cxr_assets.experiment import compose
from cxr_assets.learning import networks
from cxr_assets.learning.depthwise import DepthwiseConvolution


def layer(channels: int, side: int = 7) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels)


@pytest.mark.parametrize(
    ("shape", "side"), [((3, 4, 5, 8), 7), ((1, 2, 2, 2), 7), ((2, 20, 9, 9), 3)]
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_outputs_and_gradients_are_those_of_torch(shape, side, memory_format):
    torch.manual_seed(0)
    theirs = layer(shape[1], side).double().to(memory_format=memory_format)
    ours = DepthwiseConvolution(theirs)
    images = torch.randn(shape, dtype=torch.float64).to(memory_format=memory_format)
    images.requires_grad_()
    torch.testing.assert_close(ours(images), theirs(images))
    inputs = (images, theirs.weight, theirs.bias)
    upstream = torch.randn(shape, dtype=torch.float64)
    for mine, other in zip(
        torch.autograd.grad(ours(images), inputs, upstream),
        torch.autograd.grad(theirs(images), inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


def test_in_float32_the_gradients_are_as_exact_as_those_of_torch():
    torch.manual_seed(0)
    theirs, exact = layer(32), layer(32).double()
    exact.load_state_dict(theirs.state_dict())
    images, upstream = torch.randn(2, 8, 32, 20, 20)

    def error(convolution: nn.Module) -> float:
        found = torch.autograd.grad(convolution(images), theirs.weight, upstream)[0]
        true = torch.autograd.grad(exact(images.double()), exact.weight, upstream.double())[0]
        return float((found - true).norm() / true.norm())

    assert error(DepthwiseConvolution(theirs)) < 1e-6
    assert error(theirs) < 1e-6


def test_in_bf16_it_is_the_layer_of_torch():
    torch.manual_seed(0)
    theirs = layer(4)
    images = torch.randn(2, 4, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        ours, other = DepthwiseConvolution(theirs)(images), theirs(images)
    torch.testing.assert_close(ours, other)
    ours.sum().backward()
    assert theirs.weight.grad is not None


def test_a_training_step_of_the_built_network_has_the_gradients_of_transformers_network():
    torch.manual_seed(0)
    ours = networks.build(networks.convnext_config(compose("demo").model, 64, CLASSES))
    assert sum(isinstance(module, DepthwiseConvolution) for module in ours.modules()) == 6
    theirs = ConvNextV2ForImageClassification(ours.config)
    theirs.load_state_dict(ours.state_dict())
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    for network in (ours, theirs):
        network.double()(pixel_values=images.double(), labels=labels).loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=name)
