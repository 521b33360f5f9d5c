import pytest
import torch
from tiny import CLASSES

from cxr_assets.experiment import Augmentation, compose
from cxr_assets.learning import drop_path, networks
from cxr_assets.radiographs.augmentation import Augmenter
from cxr_assets.radiographs.datamodule import EpochShuffle
from cxr_assets.radiographs.shard import Shard

RANKS = 3
STRENGTHS = dict.fromkeys(("affine", "exposure", "detail", "noise", "collimation"), 1.0)


def shards(total: int) -> list[Shard]:
    return [Shard(rank, RANKS, total) for rank in range(RANKS)]


@pytest.mark.parametrize("total", range(1, 11))
def test_every_row_counts_once(total):
    rows = torch.arange(total)
    assert torch.cat([one.of(rows)[: one.counted] for one in shards(total)]).tolist() == [*rows]
    assert all(len(one.of(rows)) for one in shards(total)), "a network needs an image"


@pytest.mark.parametrize("total", [6, 7])
def test_augmentation_depends_on_the_place_in_the_batch_alone(total):
    images = torch.randint(256, (total, 32, 32), dtype=torch.uint8)
    augment = Augmenter(Augmentation(flip=0.5, **STRENGTHS))
    torch.manual_seed(1)
    expected = augment(images, 24)
    after = torch.get_rng_state()
    parts = []
    for shard in shards(total):
        torch.manual_seed(1)
        parts.append(augment(shard.of(images), 24, shard))
        assert torch.equal(torch.get_rng_state(), after), "generators are in step"
    torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=1e-3)


def test_stochastic_depth_drops_the_same_branches():
    overrides = ["model.drop_path_rate=0.5", "model.hidden_sizes=[8,8,8,8]"]
    config = networks.convnext_config(compose("demo", overrides).model, 32, CLASSES)
    network, images = networks.build(config).train(), torch.randn(7, 3, 32, 32)
    torch.manual_seed(1)
    expected = network(images).logits
    layers = drop_path.install(network)
    assert layers
    parts = []
    for shard in shards(7):
        for layer in layers:
            layer.shard = shard
        torch.manual_seed(1)
        parts.append(network(shard.of(images)).logits)
    torch.testing.assert_close(torch.cat(parts), expected)
    assert not torch.allclose(expected, network.eval()(images).logits), "nothing was dropped"


@pytest.mark.parametrize("balanced", [False, True])
def test_the_batches_of_all_are_those_of_one(balanced):
    labels = torch.arange(20) % 2
    samplers = [EpochShuffle(labels, 6, 0, balanced, rank, RANKS) for rank in range(RANKS)]
    expected = list(EpochShuffle(labels, 6, 0, balanced))
    for sampler in samplers:
        sampler.skip(1)
    for number, parts in enumerate(zip(*samplers, strict=True), 1):
        counted = [
            part[: sampler.shard(number).counted]
            for part, sampler in zip(parts, samplers, strict=True)
        ]
        assert torch.equal(torch.cat(counted), expected[number])
    assert number == 3
