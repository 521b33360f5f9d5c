import pytest
import tiny
import torch

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs.augmentation import Variation
from cxr_assets.radiographs.datamodule import EpochShuffle, FilmsDataModule, OnDisk
from cxr_serving.preprocessing import Preprocessing


def films_of(layout: Layout, limit: int = 2**30) -> FilmsDataModule:
    return FilmsDataModule(
        layout.processed,
        batch_size=4,
        seed=0,
        balanced=False,
        augmentation=compose("demo").trainer.augmentation,
        in_memory_limit=limit,
    )


@pytest.mark.parametrize("balanced", [False, True])
def test_order_depends_on_seed_and_epoch_alone(balanced):
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochShuffle(torch.zeros(10, dtype=torch.int64), 4, seed, balanced)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler)).tolist()

    assert balanced or sorted(order(0, 0)) == list(range(10))
    assert order(0, 1) == order(0, 1)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_balanced_each_class_comes_up_as_often():
    labels = torch.tensor([0] * 800 + [1] * 150 + [2] * 50)
    sampler = EpochShuffle(labels, 32, seed=0, balanced=True)
    seen = torch.bincount(labels[torch.cat(list(sampler))])
    assert seen.sum() == 1000
    assert seen.min() > 280


def test_augmentation_varies_films_and_keeps_their_scale():
    torch.manual_seed(0)
    films = torch.randint(40, 200, (1, 32, 32), dtype=torch.uint8).repeat(8, 1, 1)
    varied = Variation(compose("demo").trainer.augmentation)(films)
    assert varied.shape == films.shape
    assert varied.dtype == torch.float32
    assert varied.min() >= 0
    assert varied.max() <= 255
    assert len({film.numpy().tobytes() for film in varied}) == 8
    assert abs(varied.mean() - films.float().mean()) < 40


def test_validation_is_never_augmented(tmp_path):
    layout = Layout(tmp_path)
    tiny.processed(layout)
    module = films_of(layout)

    class Trainer:
        training = False

    module.trainer = Trainer()
    films, labels = next(iter(module.val_dataloader()))
    inputs, _ = module.on_after_batch_transfer((films, labels), 0)
    assert torch.equal(inputs, Preprocessing(tiny.SIZE).normalise(films))
    Trainer.training = True
    varied, _ = module.on_after_batch_transfer((films, labels), 0)
    assert not torch.equal(varied, inputs)


def test_films_that_do_not_fit_in_memory_come_from_disk_in_the_same_batches(tmp_path):
    layout = Layout(tmp_path)
    tiny.processed(layout, films=5)
    both_splits = 2 * 3 * 5 * tiny.SIZE**2
    in_memory, on_disk = films_of(layout, both_splits), films_of(layout, both_splits - 1)
    assert not isinstance(in_memory.films("train"), OnDisk)
    assert isinstance(on_disk.films("train"), OnDisk)
    assert isinstance(on_disk.films("val"), OnDisk)
    for loader in ("train_dataloader", "val_dataloader"):
        expected, streamed = getattr(in_memory, loader)(), getattr(on_disk, loader)()
        for epoch in range(2):
            for batches in (expected, streamed):
                if loader == "train_dataloader":
                    batches.sampler.set_epoch(epoch)
            for ours, theirs in zip(streamed, expected, strict=True):
                assert torch.equal(ours[0], theirs[0])
                assert torch.equal(ours[1], theirs[1])


def test_training_from_disk_is_the_same_training(tmp_path):
    weights = []
    for name, limit in (("in-memory", 2**30), ("on-disk", 1000)):
        layout = Layout(tmp_path / name)
        tiny.processed(layout, films=5)
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
    assert fingerprint == other_fingerprint, "where films lie does not shape the result"
    assert all(torch.equal(streamed[key], expected[key]) for key in expected)
