import pytest
import torch

from cxr_assets.learning.mixing import mix


def batches(mixup: float, cutmix: float, number: int = 200):
    """Mixed batches of four images: image i is i everywhere, its target the i-th unit vector."""
    torch.manual_seed(0)
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8).contiguous()
    for _ in range(number):
        yield mix(images, torch.eye(4), mixup, cutmix)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_targets_are_mixed_as_the_images_are(mixup, cutmix):
    mixed = 0
    for images, targets in batches(mixup, cutmix):
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
        means = images.mean(dim=(1, 2, 3))
        torch.testing.assert_close(means, targets @ torch.arange(4.0))
        mixed += not torch.equal(targets, torch.eye(4))
    assert 50 < mixed < 150, "about half of the batches"


def test_mixup_blends_everywhere_and_cutmix_pastes():
    for images, _ in batches(mixup=0.4, cutmix=0.0):
        assert all(len(image.unique()) == 1 for image in images)
    pasted = 0
    for images, _ in batches(mixup=0.0, cutmix=1.0):
        assert set(images.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
        pasted += any(len(image.unique()) == 2 for image in images)
    assert pasted > 50


def test_without_mixing_nothing_changes_and_no_random_numbers_are_used():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    images, targets = torch.rand(4, 1, 8, 8), torch.eye(4)
    torch.set_rng_state(before)
    same_images, same_targets = mix(images, targets, 0.0, 0.0)
    assert same_images is images
    assert same_targets is targets
    assert torch.equal(torch.get_rng_state(), before)
