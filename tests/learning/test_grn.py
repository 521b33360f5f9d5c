import torch
from tiny import CLASSES
from transformers import ConvNextV2ForImageClassification
from transformers.models.convnextv2.modeling_convnextv2 import ConvNextV2GRN

from cxr_assets.experiment import compose
from cxr_assets.learning import networks
from cxr_assets.learning.grn import GlobalResponseNorm


def random_layer(channels: int) -> ConvNextV2GRN:
    layer = ConvNextV2GRN(channels).double()
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    return layer


def test_outputs_and_gradients_are_those_of_transformers():
    torch.manual_seed(0)
    theirs = random_layer(6)
    ours = GlobalResponseNorm(theirs.weight, theirs.bias)
    images = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(images), theirs(images))
    inputs = (images, theirs.weight, theirs.bias)
    upstream = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    for mine, other in zip(
        torch.autograd.grad(ours(images), inputs, upstream),
        torch.autograd.grad(theirs(images), inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)
    assert torch.autograd.gradcheck(ours, images)


def test_a_channel_that_is_zero_everywhere_has_a_finite_gradient():
    layer = random_layer(3)
    ours = GlobalResponseNorm(layer.weight, layer.bias)
    images = torch.randn(1, 2, 2, 3, dtype=torch.float64)
    images[..., 1] = 0
    images.requires_grad_()
    ours(images).sum().backward()
    assert torch.isfinite(images.grad).all()


def test_in_bf16_it_computes_in_float32():
    torch.manual_seed(0)
    layer = random_layer(6).float()
    images = torch.randn(2, 4, 5, 6).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = GlobalResponseNorm(layer.weight, layer.bias)(images)
    torch.testing.assert_close(output, layer(images.float()))
    output.sum().backward()
    assert images.grad.dtype == torch.bfloat16


def test_the_built_network_is_transformers_network_with_the_same_names():
    torch.manual_seed(0)
    ours = networks.build(networks.convnext_config(compose("demo").model, 64, CLASSES)).eval()
    assert sum(isinstance(module, GlobalResponseNorm) for module in ours.modules()) == 6
    theirs = ConvNextV2ForImageClassification(ours.config).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, theirs(images).logits)
