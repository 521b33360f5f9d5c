import tiny
import torch

from cxr_assets.layout import Layout
from cxr_assets.radiographs.augmentation import Augmentation
from cxr_assets.radiographs.datamodule import EpochShuffle, FilmsDataModule
from cxr_serving.preprocessing import Preprocessing


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochShuffle(10, 4, seed)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler)).tolist()

    assert sorted(order(0, 0)) == list(range(10))
    assert order(0, 1) == order(0, 1)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_augmentation_varies_films_and_keeps_their_scale():
    torch.manual_seed(0)
    films = torch.randint(40, 200, (1, 32, 32), dtype=torch.uint8).repeat(8, 1, 1)
    varied = Augmentation()(films)
    assert varied.shape == films.shape
    assert varied.dtype == torch.float32
    assert varied.min() >= 0
    assert varied.max() <= 255
    assert len({film.numpy().tobytes() for film in varied}) == 8
    assert abs(varied.mean() - films.float().mean()) < 40


def test_validation_is_never_augmented(tmp_path):
    layout = Layout(tmp_path)
    tiny.processed(layout)
    module = FilmsDataModule(layout.processed, batch_size=4, seed=0, augmentation=True)

    class Trainer:
        training = False

    module.trainer = Trainer()
    films, labels = next(iter(module.val_dataloader()))
    inputs, _ = module.on_after_batch_transfer((films, labels), 0)
    assert torch.equal(inputs, Preprocessing(tiny.SIZE).normalise(films))
    Trainer.training = True
    varied, _ = module.on_after_batch_transfer((films, labels), 0)
    assert not torch.equal(varied, inputs)
