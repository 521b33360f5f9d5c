from typing import Any

import pytest
import tiny
import torch

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs.augmentation import Augmenter
from cxr_assets.radiographs.datamodule import (
    EpochShuffle,
    OnDisk,
    RadiographsDataModule,
    stages,
)
from cxr_serving.model.preprocessing import Preprocessing


def images_of(
    layout: Layout, limit: int = 2**30, balanced: bool = False, **more: Any
) -> RadiographsDataModule:
    return RadiographsDataModule(
        layout.processed,
        batch_size=4,
        seed=0,
        balanced=balanced,
        augmentation=compose("demo").trainer.augmentation,
        in_memory_limit=limit,
        **more,
    )


@pytest.mark.parametrize("balanced", [False, True])
def test_the_order_depends_on_seed_and_epoch_only(balanced):
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochShuffle(torch.zeros(10, dtype=torch.int64), 4, seed, balanced)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler)).tolist()

    assert balanced or sorted(order(0, 0)) == list(range(10))
    assert order(0, 1) == order(0, 1)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_balanced_sampling_shows_classes_equally_often():
    labels = torch.tensor([0] * 800 + [1] * 150 + [2] * 50)
    sampler = EpochShuffle(labels, 32, seed=0, balanced=True)
    seen = torch.bincount(labels[torch.cat(list(sampler))])
    assert seen.sum() == 1000
    assert seen.min() > 280


def test_augmentation_varies_images_and_keeps_their_scale():
    torch.manual_seed(0)
    images = torch.randint(40, 200, (1, 32, 32), dtype=torch.uint8).repeat(8, 1, 1)
    varied = Augmenter(compose("demo").trainer.augmentation)(images)
    assert varied.shape == images.shape
    assert varied.dtype == torch.float32
    assert varied.min() >= 0
    assert varied.max() <= 255
    assert len({image.numpy().tobytes() for image in varied}) == 8
    assert abs(varied.mean() - images.float().mean()) < 40


def test_validation_is_never_augmented(tmp_path):
    layout = Layout(tmp_path)
    tiny.processed(layout)
    module = images_of(layout)

    class Trainer:
        training, current_epoch, max_epochs = False, 0, 1
        global_rank, world_size = 0, 1

    module.trainer = Trainer()
    images, labels = next(iter(module.val_dataloader()))
    inputs, _ = module.on_after_batch_transfer((images, labels), 0)
    assert torch.equal(inputs, Preprocessing(tiny.SIZE).normalise(images))
    Trainer.training = True
    varied, _ = module.on_after_batch_transfer((images, labels), 0)
    assert not torch.equal(varied, inputs)


@pytest.mark.parametrize(
    ("size", "share", "patch", "expected"),
    [
        (160, 1.0, 8, (160,)),
        (160, 0.6, 8, (96, 128, 128, 160)),
        (224, 0.5, 8, (128, 160, 192, 224)),
        (224, 0.5, 4, (112, 144, 192, 224)),
        (168, 0.99, 16, (168, 168, 168, 168)),
    ],
)
def test_images_grow_in_four_steps(size, share, patch, expected):
    assert stages(size, share, patch) == expected


def test_training_images_grow_with_the_epochs_and_validation_images_do_not(tmp_path):
    layout = Layout(tmp_path)
    tiny.processed(layout)
    module = images_of(layout, progressive=0.5, patch=1)

    class Trainer:
        training, max_epochs = True, 6
        global_rank, world_size = 0, 1

    module.trainer = Trainer()
    sides = []
    for Trainer.current_epoch in range(6):
        inputs, _ = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
        sides.append(inputs.shape[-1])
    assert sides == [16, 16, 20, 28, 28, 32]
    Trainer.training, Trainer.current_epoch = False, 0
    inputs, _ = module.on_after_batch_transfer(next(iter(module.val_dataloader())), 0)
    assert inputs.shape[-1] == tiny.SIZE


def test_images_that_do_not_fit_in_memory_come_from_disk_in_the_same_batches(tmp_path):
    layout = Layout(tmp_path)
    tiny.processed(layout, images=5)
    both_splits = 2 * 3 * 5 * tiny.SIZE**2
    in_memory, on_disk = images_of(layout, both_splits), images_of(layout, both_splits - 1)
    assert not isinstance(in_memory.images("train"), OnDisk)
    assert isinstance(on_disk.images("train"), OnDisk)
    assert isinstance(on_disk.images("val"), OnDisk)
    for loader in ("train_dataloader", "val_dataloader"):
        expected, streamed = getattr(in_memory, loader)(), getattr(on_disk, loader)()
        for epoch in range(2):
            for batches in (expected, streamed):
                if loader == "train_dataloader":
                    batches.sampler.set_epoch(epoch)
            for ours, theirs in zip(streamed, expected, strict=True):
                assert torch.equal(ours[0], theirs[0])
                assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("limit", [2**30, 0])
def test_targets_are_those_of_the_images_of_the_batch(limit, balanced, tmp_path):
    layout = Layout(tmp_path)
    tiny.processed(layout, images=5)
    means = images_of(layout).images("train").inputs.float().mean((1, 2)).unsqueeze(1)
    module = images_of(layout, limit, balanced=balanced, targets=means)
    loader = module.train_dataloader()
    assert isinstance(module.images("train"), OnDisk) is (limit == 0)
    for batch in loader:
        images, labels, targets = batch
        assert torch.equal(targets.squeeze(1), images.float().mean((1, 2)))
        inputs, *others = module.on_after_batch_transfer(batch, 0)
        assert inputs.shape[1:] == (3, tiny.SIZE, tiny.SIZE)
        assert all(ours is theirs for ours, theirs in zip(others, (labels, targets), strict=True))
    assert len(next(iter(module.val_dataloader()))) == 2


def test_training_from_disk_equals_training_from_memory(tmp_path):
    weights = []
    for name, limit in (("in-memory", 2**30), ("on-disk", 1000)):
        layout = Layout(tmp_path / name)
        tiny.processed(layout, images=5)
        overrides = [
            "trainer.max_epochs=2",
            "trainer.batch_size=4",
            f"data.in_memory_limit={limit}",
        ]
        plan = make_plan("convnext_model", compose("demo", [*tiny.NETWORKS, *overrides]), layout)
        fit(plan, lambda line: None)
        state = torch.load(plan.work / "best.ckpt", weights_only=True)["state_dict"]
        weights.append((plan.fingerprint, state))
    (fingerprint, expected), (other_fingerprint, streamed) = weights
    assert fingerprint == other_fingerprint, "where images lie does not shape the result"
    assert all(torch.equal(streamed[key], expected[key]) for key in expected)
