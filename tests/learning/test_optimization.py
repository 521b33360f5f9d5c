import pytest
from tiny import CLASSES
from torch import nn

from cxr_assets.experiment import compose
from cxr_assets.learning import networks
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


def test_another_head_learns_like_the_networks_own(network):
    head = nn.Linear(192, 5)
    groups = parameter_groups(network, 1.0, layer_decay=0.5, weight_decay=0.05, head=head)
    group_of = {id(p): number for number, group in enumerate(groups) for p in group["params"]}
    for name, parameter in head.named_parameters():
        own = network.get_parameter(f"classifier.{name}")
        assert group_of[id(parameter)] == group_of[id(own)]


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
