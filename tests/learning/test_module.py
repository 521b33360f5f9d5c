import torch

from cxr_assets.experiment import compose
from cxr_assets.learning import networks
from cxr_assets.learning.module import Classifier
from cxr_assets.learning.probe import LinearProbe
from cxr_assets.radiographs.naming import CLASSES
from cxr_serving.preprocessing import Preprocessing


def hyperparameters(network: dict) -> dict:
    return {
        "model_name": "tiny",
        "num_classes": 3,
        "network": network,
        "lr": 1e-3,
        "weight_decay": 0.05,
        "warmup_epochs": 0.0,
        "label_smoothing": 0.0,
        "class_weights": None,
    }


def test_probe_on_embeddings_equals_its_whole_network_on_films():
    experiment = compose("demo")
    torch.manual_seed(0)
    probe = LinearProbe(**hyperparameters(networks.dinov2_config(experiment.probe, 64, CLASSES)))
    hidden = experiment.probe.hidden_size
    with torch.no_grad():
        probe.network.classifier.weight[:, :hidden].normal_()
        probe.network.classifier.bias.normal_()
    films = torch.randint(0, 256, (5, 64, 64), dtype=torch.uint8)
    probe.network.eval()
    with torch.no_grad():
        whole = probe.network(pixel_values=Preprocessing(64).normalise(films)).logits
        head = probe(probe.embed(films, 2, lambda line: None))
    torch.testing.assert_close(head, whole, rtol=1e-4, atol=1e-5)


def test_only_the_head_of_the_probe_learns():
    experiment = compose("demo")
    probe = LinearProbe(**hyperparameters(networks.dinov2_config(experiment.probe, 64, CLASSES)))
    trained = [name for name, value in probe.named_parameters() if value.requires_grad]
    assert trained == ["network.classifier.weight", "network.classifier.bias"]


def test_norms_and_biases_are_not_decayed(monkeypatch):
    network = networks.convnext_config(compose("demo").model, 64, CLASSES)
    module = Classifier(**hyperparameters(network))

    class Trainer:
        estimated_stepping_batches = 10
        max_epochs = 1

    monkeypatch.setattr(Classifier, "trainer", Trainer(), raising=False)
    optimizer = module.configure_optimizers()["optimizer"]
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] == 0.05
    assert plain["weight_decay"] == 0
    assert all(p.squeeze().ndim > 1 for p in decayed["params"])
    covered = sum(len(group["params"]) for group in optimizer.param_groups)
    assert covered == len(list(module.parameters()))
