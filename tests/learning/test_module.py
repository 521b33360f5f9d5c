import pytest
import torch
from tiny import CLASSES

from cxr_assets.experiment import compose
from cxr_assets.learning import module as mixing
from cxr_assets.learning import networks
from cxr_assets.learning.module import MONITOR, TEMPERATURE, Classifier


def classifier(**changes: object) -> Classifier:
    settings = {
        "model_name": "tiny",
        "num_classes": 3,
        "network": networks.convnext_config(compose("demo").model, 64, CLASSES),
        "optimizer": "adamw",
        "lr": 1e-3,
        "layer_decay": 1.0,
        "weight_decay": 0.05,
        "warmup_epochs": 1.0,
        "label_smoothing": 0.0,
        "class_weights": None,
        "mixup": 0.0,
        "cutmix": 0.0,
        "distillation": 0.0,
        "flip_averaging": False,
    }
    return Classifier(**{**settings, **changes})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_learning_rate_warms_up_and_falls_to_zero(optimizer, monkeypatch):
    class Trainer:
        estimated_stepping_batches = 20
        max_epochs = 5

    monkeypatch.setattr(Classifier, "trainer", Trainer(), raising=False)
    configured = classifier(optimizer=optimizer).configure_optimizers()
    rates = []
    for _ in range(20):
        rates.append(configured["optimizer"].param_groups[0]["lr"])
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()
    assert rates[:4] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 2e-5


def test_class_weights_and_smoothing_shape_the_loss():
    torch.manual_seed(0)
    module = classifier(class_weights=[3.0, 1.0, 1.0], label_smoothing=0.1)
    inputs, labels = torch.randn(6, 3, 64, 64), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.no_grad():
        loss = module.training_step((inputs, labels), 0)["loss"]
        expected = torch.nn.functional.cross_entropy(
            module(inputs), labels, torch.tensor([3.0, 1.0, 1.0]), label_smoothing=0.1,
            reduction="none",
        ).mean()  # fmt: skip
    torch.testing.assert_close(loss, expected)


def test_the_embeddings_of_a_linear_teacher_are_learnt():
    torch.manual_seed(0)
    module = classifier(distillation=2.0, lr=1e-2)
    module.add_regressor(4)
    inputs, labels = torch.randn(12, 3, 64, 64), torch.arange(12) % 3
    embeddings = inputs.mean((-2, -1)) @ torch.randn(3, 4) * 64
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
    errors = []
    for _ in range(12):
        losses = module.training_step((inputs, labels, embeddings), 0)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        errors.append(losses["distillation"].item())
    assert errors[-1] < 0.5 * errors[0]
    entropy = torch.nn.functional.cross_entropy(module(inputs), labels)
    losses = module.training_step((inputs, labels, embeddings), 0)
    torch.testing.assert_close(losses["loss"], entropy + 2 * losses["distillation"])


def test_mixed_images_have_mixed_embeddings(monkeypatch):
    monkeypatch.setattr(mixing, "mix", lambda inputs, targets, *of: (inputs, targets.flip(0)))
    module = classifier(distillation=1.0, mixup=0.2)
    module.add_regressor(4)
    inputs, embeddings = torch.randn(2, 3, 64, 64), torch.randn(2, 4)
    seen = []
    module.regressor.register_forward_hook(lambda *call: seen.append(call[-1]))
    with torch.no_grad():
        error = module.training_step((inputs, torch.tensor([0, 1]), embeddings), 0)["distillation"]
    torch.testing.assert_close(error, torch.nn.functional.mse_loss(seen[0], embeddings.flip(0)))


@pytest.mark.parametrize("flip_averaging", [False, True])
def test_validation_counts_what_the_model_will_serve(flip_averaging):
    torch.manual_seed(0)
    module = classifier(flip_averaging=flip_averaging).eval()
    logged = {}
    module.log = lambda name, value, **kwargs: logged.update({name: float(value)})
    module.log_dict = lambda values, **kwargs: logged.update(
        {k: float(v) for k, v in values.items()}
    )
    inputs, labels = torch.randn(12, 3, 64, 64), torch.arange(12) % 3
    with torch.no_grad():
        logits = module(inputs)
        if flip_averaging:
            logits = (logits + module(inputs.flip(-1))) / 2
        module.validation_step((inputs, labels), 0)
        module.on_validation_epoch_end()
    assert logged["val_loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5
    )
    assert {MONITOR, TEMPERATURE, "val_accuracy", "val_auroc"} <= logged.keys()
