from tiny import CLASSES

from cxr_assets.experiment import Model, compose
from cxr_assets.learning import networks


def test_full_is_a_convnextv2_tiny():
    full = compose("full").model.model_dump()
    settings = Model.model_validate({**full, "pretrained": None})
    network = networks.build(networks.convnext_config(settings, 224, CLASSES))
    assert sum(p.numel() for p in network.convnextv2.parameters()) == 27_866_496
