import pytest
import torch
from tiny import CLASSES

from cxr_assets.experiment import compose
from cxr_assets.learning import networks
from cxr_assets.learning.muon import Muon, orthogonalised
from cxr_assets.learning.optimization import parameter_groups


@pytest.fixture
def network():
    return networks.build(networks.convnext_config(compose("demo").model, 64, CLASSES))


def test_every_parameter_learns_and_only_matrices_and_filters_are_decayed(network):
    groups = parameter_groups(network, lr=1e-3, layer_decay=1.0, weight_decay=0.05)
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in network.parameters()
    }
    for group in groups:
        assert group["lr"] == 1e-3
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.squeeze().ndim > 1)


def test_layers_learn_more_slowly_the_further_they_are_from_the_head(network):
    groups = parameter_groups(network, lr=1.0, layer_decay=0.5, weight_decay=0.05)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    rate = {name: rates[id(p)] for name, p in network.named_parameters()}
    blocks = [
        f"convnextv2.encoder.stages.{stage}.layers.{block}.dwconv.weight"
        for stage, depth in enumerate(network.config.depths)
        for block in range(depth)
    ]
    assert rate["classifier.weight"] == rate["convnextv2.layernorm.weight"] == 1
    assert [rate[name] for name in reversed(blocks)] == [
        0.5 ** (1 + below) for below in range(len(blocks))
    ]
    downsampling = "convnextv2.encoder.stages.2.downsampling_layer.1.weight"
    assert rate[downsampling] == rate["convnextv2.encoder.stages.2.layers.0.dwconv.weight"]
    assert rate["convnextv2.embeddings.patch_embeddings.weight"] == 0.5 ** (1 + len(blocks))
    assert groups[0]["lr"] == 1, "the head's rate is the one that is reported"


def test_muon_is_adamw_for_all_but_the_hidden_matrices():
    torch.manual_seed(0)
    ours, theirs = (
        [torch.nn.Parameter(torch.ones(5)), torch.nn.Parameter(torch.ones(2, 3, 4))]
        for _ in range(2)
    )
    muon = Muon([{"params": ours, "lr": 0.1, "weight_decay": 0.2, "hidden_matrices": False}])
    adamw = torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.2)
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        muon.step()
        adamw.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape", [(40, 160), (160, 40), (32, 64)])
def test_orthogonalised_keeps_directions_and_evens_their_lengths(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    lengths = torch.diagonal(left.T @ orthogonalised(matrix) @ right.T)
    assert lengths.min() > 0.3
    assert lengths.max() < 1.3


def test_muon_steps_as_far_as_adamw_does():
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.zeros(64, 256))
    muon = Muon([{"params": [matrix], "lr": 1.0, "weight_decay": 0.0, "hidden_matrices": True}])
    matrix.grad = torch.randn_like(matrix)
    muon.step()
    assert matrix.detach().square().mean().sqrt() == pytest.approx(0.2, rel=0.3)


def test_muon_resumes_from_its_saved_state():
    def steps(parameter, optimizer, gradients):
        for gradient in gradients:
            parameter.grad = gradient
            optimizer.step()

    def new(values):
        parameter = torch.nn.Parameter(values.clone())
        group = {"params": [parameter], "lr": 0.1, "weight_decay": 0.1, "hidden_matrices": True}
        return parameter, Muon([group])

    torch.manual_seed(0)
    gradients = torch.randn(6, 8, 16)
    straight, optimizer = new(torch.ones(8, 16))
    steps(straight, optimizer, gradients)
    first, optimizer = new(torch.ones(8, 16))
    steps(first, optimizer, gradients[:3])
    second, resumed = new(first.detach())
    resumed.load_state_dict(optimizer.state_dict())
    steps(second, resumed, gradients[3:])
    assert torch.equal(second, straight)
