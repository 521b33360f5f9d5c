import pytest
import torch

from cxr_assets.learning.calibration import temperature


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 4.0])
def test_the_temperature_of_overconfident_logits_is_found(overconfidence):
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(20_000, 3, generator=generator)
    labels = torch.multinomial(honest.softmax(dim=1), 1, generator=generator).squeeze(1)
    found = temperature(overconfidence * honest, labels)
    assert found == pytest.approx(overconfidence, rel=0.05)


def test_the_temperature_is_bounded_if_every_image_is_right():
    logits = 10 * torch.eye(3)
    assert 0.05 <= temperature(logits, torch.arange(3)) <= 20
