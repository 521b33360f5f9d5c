import pytest
import torch

from cxr_assets.learning.recipe import balanced


def test_weights_are_inverse_to_the_frequency_of_a_class_and_one_on_average():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = balanced(labels, 3)
    assert [weight * n for weight, n in zip(weights, (6, 3, 1), strict=True)] == pytest.approx(
        [10 / 3] * 3
    )
    assert torch.tensor(weights)[labels].mean().item() == pytest.approx(1)
