import pytest
import torch

from cxr_assets.experiment import Augmentation
from cxr_assets.radiographs.augmentation import Augmenter

KINDS = ["flip", "affine", "exposure", "detail", "noise", "collimation"]
NONE = dict.fromkeys(KINDS, 0.0)


def images(number: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 1, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bicubic")
    return smooth.squeeze(1).clamp(0, 1).mul(255).to(torch.uint8)


@pytest.mark.parametrize("property_", KINDS)
def test_each_property_varies_images_and_keeps_them_on_the_scale(property_):
    torch.manual_seed(0)
    before = images()
    after = Augmenter(Augmentation(**{**NONE, property_: 1.0}))(before)
    assert after.shape == before.shape
    assert after.dtype == torch.float32
    assert after.min() >= 0
    assert after.max() <= 255
    changed = (after - before).abs().amax(dim=(1, 2)) > 0.5
    assert changed.float().mean() > 0.2
    if property_ == "flip":
        torch.testing.assert_close(after, before.flip(-1).float(), rtol=0, atol=0.01)


def test_strength_zero_leaves_images_unchanged():
    before = images()
    torch.testing.assert_close(Augmenter(Augmentation(**NONE))(before), before.float())


@pytest.mark.parametrize("affine", [0.0, 1.0])
def test_smaller_images_are_the_same_images(affine):
    augment = Augmenter(Augmentation(**{**NONE, "affine": affine}))
    torch.manual_seed(0)
    large = augment(images())
    torch.manual_seed(0)
    small = augment(images(), 24)
    pooled = torch.nn.functional.avg_pool2d(large.unsqueeze(1), 2).squeeze(1)
    assert small.shape == pooled.shape
    # But for the outside, which is black.
    difference = (small - pooled)[:, 3:-3, 3:-3]
    assert difference.square().mean().sqrt() < 0.05 * large.std()


@pytest.mark.parametrize("shape", [(48, 48), (40, 56)])
def test_detail_is_sharpened_and_blurred_around_the_local_mean(shape):
    # Pooling is the baseline.
    torch.manual_seed(0)
    before = torch.randint(0, 256, (8, *shape), dtype=torch.uint8)
    torch.manual_seed(1)
    after = Augmenter(Augmentation(**{**NONE, "detail": 1.0}))(before)
    torch.manual_seed(1)
    edges = torch.empty(8, 1, 1, 1).uniform_(-1, 1.5)
    local = torch.empty(8, 1, 1, 1).uniform_(-0.3, 1)
    grey = before.float().unsqueeze(1)
    padded = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    near = torch.nn.functional.avg_pool2d(padded, 3, 1)
    coarse = torch.nn.functional.avg_pool2d(grey, 8)
    far = torch.nn.functional.interpolate(coarse, size=shape, mode="bilinear")
    expected = grey + (grey - near) * edges + (grey - far) * local
    torch.testing.assert_close(after, expected.squeeze(1).clamp(0, 255), rtol=0, atol=1e-2)


def test_each_image_of_a_batch_is_augmented_differently():
    torch.manual_seed(0)
    same = images(1).expand(16, 48, 48)
    after = Augmenter(Augmentation(**{**NONE, "affine": 1.0, "exposure": 1.0}))(same)
    assert len({image.mean().item() for image in after}) > 8


def test_the_strength_sets_how_far_images_move():
    torch.manual_seed(0)
    moved = [
        (Augmenter(Augmentation(**{**NONE, "exposure": strength}))(images()) - images())
        .abs()
        .mean()
        for strength in (0.5, 1.0, 2.0)
    ]
    assert moved == sorted(moved)


def test_collimation_blackens_borders_and_nothing_else():
    torch.manual_seed(0)
    before = images().clamp(1)
    after = Augmenter(Augmentation(**{**NONE, "collimation": 1.0}))(before)
    black = after == 0
    torch.testing.assert_close(after[~black], before.float()[~black])
    rows, columns = black.all(dim=2), black.all(dim=1)
    assert (black == (rows.unsqueeze(2) | columns.unsqueeze(1))).all()  # whole rows and columns
    assert not rows[:, 6:-6].any()
    assert not columns[:, 6:-6].any()
    assert 0.4 < columns[:, 0].float().mean() < 0.6
