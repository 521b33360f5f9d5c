import torch
from torch.optim.swa_utils import AveragedModel

from cxr_assets.learning.ema import Ema


def test_an_update_keeps_the_share_of_the_old_average_that_it_is_given():
    network = torch.nn.Linear(1, 1, bias=False)
    average = AveragedModel(network, **Ema(0.75)._kwargs)
    torch.nn.init.constant_(network.weight, 1)
    average.update_parameters(network)
    torch.nn.init.constant_(network.weight, 5)
    average.update_parameters(network)
    assert average.module.weight.item() == 2
