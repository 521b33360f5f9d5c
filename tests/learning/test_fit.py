import itertools
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from learning.trainings import ASSETS, experiment, train
from tiny import CLASSES
from transformers import AutoModelForImageClassification

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning import energy, networks
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit, in_bf16
from cxr_assets.learning.linear_probe import LinearProbe
from cxr_assets.learning.lock import TrainingError
from cxr_assets.learning.module import Classifier
from cxr_assets.learning.plan import plan as make_plan
from cxr_serving.model import bundle, store
from cxr_serving.model.predictor import Predictor


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=6)
    return layout


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Layout, list[str]]]:
    """The plan of a finished training and its progress lines; read only."""

    @cache
    def trained(asset: str) -> tuple[Layout, list[str]]:
        layout = Layout(tmp_path_factory.mktemp(asset) / "data")
        tiny.processed(layout, images=6)
        return layout, train(asset, layout)[1]

    return trained


@pytest.fixture
def trained(once, tmp_path: Path) -> Callable[[str], Layout]:
    """A copy that tests may change."""

    def copied(asset: str) -> Layout:
        return Layout(Path(shutil.copytree(once(asset)[0].root, tmp_path / asset)))

    return copied


@pytest.mark.parametrize("asset", ASSETS)
def test_a_training_ends_in_a_bundle_that_serves(asset, once):
    layout, lines = once(asset)
    directory = store.latest(layout.models(asset))
    assert [line[:9] for line in lines if line.startswith("epoch")] == [
        "epoch 1/3", "epoch 2/3", "epoch 3/3",
    ]  # fmt: skip
    record = store.verify(directory)
    history = pd.read_csv(directory / "history.csv")
    assert record.validation["macro_f1"] == history["val_macro_f1"].max()
    assert (record.classes, record.synthetic, record.seed) == (CLASSES, True, 0)
    assert record.dagster_run_id == "dagster-run"

    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    probabilities = Predictor(directory).predict(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("asset", "module_class"), [("convnext_model", Classifier), ("dinov2_probe", LinearProbe)]
)
def test_the_checkpoint_alone_rebuilds_the_network(asset, module_class, once):
    directory = store.latest(once(asset)[0].models(asset))
    checkpoint = torch.load(directory / "best.ckpt", weights_only=True)
    hyperparameters = checkpoint["hyper_parameters"]
    assert hyperparameters["num_classes"] == 3
    assert hyperparameters["model_name"] in ("convnextv2-demo", "dinov2-demo")
    rebuilt = module_class.load_from_checkpoint(directory / "best.ckpt", weights_only=True).network
    exported = AutoModelForImageClassification.from_pretrained(directory)
    temperature = store.verify(directory).temperature
    assert temperature != 1
    for key, value in exported.state_dict().items():
        trained = rebuilt.state_dict()[key]
        if key.startswith("classifier."):
            trained = trained / temperature
        assert torch.equal(trained, value), key


def test_accumulated_batches_are_one_larger_batch(layout):
    """An epoch has two steps, of twelve images and of six: of three batches, and of two."""
    plain = [f"trainer.augmentation.{name}=0" for name in ("flip", "affine", "exposure")]
    states, histories = [], []
    for sizes in (["trainer.batch_size=12"], ["trainer.batch_size=4", "trainer.accumulate=3"]):
        plan = make_plan("convnext_model", experiment(*plain, *sizes), layout)
        fit(plan, lambda line: None)
        states.append(torch.load(plan.work / "last.ckpt", weights_only=True))
        histories.append(pd.read_csv(plan.work / "history.csv").drop(columns="seconds"))
    whole, parts = states
    assert parts["global_step"] == whole["global_step"] == 6
    assert parts["lr_schedulers"] == whole["lr_schedulers"]
    for part in ("state_dict", "current_model_state"):  # the average, and the weights
        torch.testing.assert_close(parts[part], whole[part], rtol=1e-3, atol=1e-5)
    pd.testing.assert_frame_equal(*histories, rtol=1e-4)


def test_bf16_trains_weights_in_float32_on_a_cpu_too(layout):
    states = []
    for precision in ("fp32", "bf16"):
        plan = make_plan("convnext_model", experiment(f"trainer.precision={precision}"), layout)
        fit(plan, lambda line: None)
        states.append(torch.load(plan.work / "last.ckpt", weights_only=True)["state_dict"])
    exact, coarse = ({k: v for k, v in each.items() if "network" in k} for each in states)
    assert {value.dtype for value in coarse.values()} == {torch.float32}
    assert any(not torch.equal(coarse[key], exact[key]) for key in exact)
    torch.testing.assert_close(coarse, exact, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("cuda", [False, True])
def test_precision_is_bf16_on_cuda_unless_it_is_set(cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    chosen = [in_bf16(precision) for precision in ("auto", "fp32", "bf16")]
    assert chosen == [cuda, False, True]


def test_energy_is_recorded_if_the_machine_measures_it(layout, monkeypatch):
    joules = itertools.count()
    monkeypatch.setattr(energy, "_read", lambda: {"package": (next(joules) * 10**6, 10**12)})
    plan = make_plan("convnext_model", experiment(), layout)
    fit(plan, lambda line: None)
    noted = pd.read_csv(plan.work / "history.csv")["joules"]
    assert (noted >= 1).all()
    assert noted.sum() < next(joules)


def test_the_probe_reads_the_cls_embedding_alone(once):
    directory = store.latest(once("dinov2_probe")[0].models("dinov2_probe"))
    for name in ("model.onnx", "model.int8.onnx", "distribution.json"):
        assert not (directory / name).exists()
    assert Predictor(directory).runtime == "torch"
    assert (directory / "reference.safetensors").exists()
    weight = AutoModelForImageClassification.from_pretrained(directory).classifier.weight
    assert weight[:, :32].abs().max() > 0
    assert weight[:, 32:].abs().max() == 0


def test_the_same_training_is_reused_and_another_is_not(trained):
    layout = trained("convnext_model")
    directory = store.latest(layout.models("convnext_model"))
    plan = make_plan("convnext_model", experiment(), layout)
    assert plan.settled() == f"reused {directory.name}"
    before = bundle.Pointer.read(plan.bundles)
    assert export(plan) == (directory, False)
    after = bundle.Pointer.read(plan.bundles)
    assert after.version == before.version
    assert after.confirmed_at > before.confirmed_at
    assert not list(plan.work.parent.iterdir())
    for change in ("seed=1", "model.lr=3e-3", "model.depths=[1,1,2,1]", "trainer.patience=2"):
        other = make_plan("convnext_model", experiment(change), layout)
        assert other.fingerprint != plan.fingerprint, change
        assert other.settled() is None


def test_a_loss_that_is_not_finite_stops_the_training(layout):
    plan = make_plan("convnext_model", experiment("model.lr=1e20"), layout)
    with pytest.raises(TrainingError, match=r"not finite.*lower model\.lr"):
        fit(plan, lambda line: None)
    assert not plan.finished


def test_forced_it_trains_again_and_publishes_the_same_weights(trained):
    layout = trained("convnext_model")
    first = store.latest(layout.models("convnext_model"))
    plan = make_plan("convnext_model", experiment(), layout)
    lines: list[str] = []
    fit(plan, lines.append)
    assert lines == [f"reused {first.name}"]
    fit(plan, lines.append, force=True)
    assert [line[:9] for line in lines[1:]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    hashes = store.verify(first).files
    assert hashes.keys() >= {"model.safetensors", "best.ckpt", "config.json", "history.csv"}
    with torch.no_grad():
        again = torch.load(plan.work / "best.ckpt", weights_only=True)["state_dict"]
    saved = torch.load(first / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(again[key], saved[key]) for key in saved)


def test_full_trains_from_directories_in_the_hubs_format(layout, tmp_path):
    """As experiment=full, with small networks saved in the hub's format."""
    scratch = experiment()
    bodies = {
        "model": networks.build(networks.convnext_config(scratch.model, 32, CLASSES)).convnextv2,
        "probe": networks.build(networks.dinov2_config(scratch.probe, 32, CLASSES)).dinov2,
    }
    for name, body in bodies.items():
        body.save_pretrained(tmp_path / name)
    settings = compose(
        "full",
        [
            f"model.pretrained={tmp_path / 'model'}",
            f"probe.pretrained={tmp_path / 'probe'}",
            "trainer.max_epochs=1",
            "probe.weight_decays=[1,0.1]",
        ],
    )
    for asset in ASSETS:
        plan = make_plan(asset, settings, layout)
        fit(plan, lambda line: None)
        directory, _ = export(plan)
        record = store.verify(directory)
        assert record.pretrained is not None
        assert record.pretrained.startswith("sha256:")
        config = json.loads((directory / "config.json").read_text())
        assert list(config["id2label"].values()) == list(CLASSES)
    exported = AutoModelForImageClassification.from_pretrained(
        store.latest(layout.models("dinov2_probe"))
    )
    frozen = bodies["probe"].state_dict()
    for key, value in exported.dinov2.state_dict().items():
        assert torch.equal(value, frozen[key]), f"{key} of the frozen backbone has changed"
