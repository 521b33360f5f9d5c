import itertools
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import f1_score
from transformers import AutoModelForImageClassification

from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning import energy, networks
from cxr_assets.learning import export as exporting
from cxr_assets.learning import plan as plans
from cxr_assets.learning.checkpoints import TrainingError
from cxr_assets.learning.export import ExportError, ParityError, export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.module import Classifier
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.learning.probe import LinearProbe
from cxr_assets.radiographs.dataset import DATASET_FILE, DatasetRecord
from cxr_assets.radiographs.naming import CLASSES
from cxr_serving.model import bundle, reference
from cxr_serving.model.network import Logits
from cxr_serving.model.predictor import Predictor

OVERRIDES = (*tiny.NETWORKS, "trainer.max_epochs=3", "trainer.batch_size=4")
ASSETS = ("convnext_model", "dinov2_probe")


def experiment(*overrides: str) -> Experiment:
    return compose("demo", [*OVERRIDES, *overrides])


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=6)
    return layout


def train(asset: str, layout: Layout, *overrides: str) -> tuple[Path, list[str]]:
    lines: list[str] = []
    plan = make_plan(asset, experiment(*overrides), layout)
    fit(plan, lines.append)
    directory, published = export(plan, "dagster-run")
    assert published
    assert bundle.latest(layout.models(asset)) == directory
    return directory, lines


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
    directory = bundle.latest(layout.models(asset))
    assert [line[:9] for line in lines if line.startswith("epoch")] == [
        "epoch 1/3", "epoch 2/3", "epoch 3/3",
    ]  # fmt: skip
    record = bundle.verify(directory)
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
    directory = bundle.latest(once(asset)[0].models(asset))
    checkpoint = torch.load(directory / "best.ckpt", weights_only=True)
    hyperparameters = checkpoint["hyper_parameters"]
    assert hyperparameters["num_classes"] == 3
    assert hyperparameters["model_name"] in ("convnextv2-demo", "dinov2-demo")
    rebuilt = module_class.load_from_checkpoint(directory / "best.ckpt", weights_only=True).network
    exported = AutoModelForImageClassification.from_pretrained(directory)
    temperature = bundle.verify(directory).temperature
    assert temperature != 1
    for key, value in exported.state_dict().items():
        trained = rebuilt.state_dict()[key]
        if key.startswith("classifier."):
            trained = trained / temperature
        assert torch.equal(trained, value), key


def test_the_main_model_is_exported_as_onnx_too(layout):
    directory, _ = train("convnext_model", layout, "trainer.flip_averaging=true")
    predictor = Predictor(directory)
    session = onnxruntime.InferenceSession(directory / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    for some in (images, images[:1]):
        pixels = predictor.preprocessing.normalise(torch.tensor(some)).numpy()
        [logits] = session.run(["logits"], {"pixel_values": pixels})
        np.testing.assert_allclose(softmax(logits, axis=1), predictor.predict(some), atol=1e-5)

    drawn = reference.read(directory)
    in_torch = Logits(predictor.model, flip_averaging=True)
    expected = in_torch(predictor.preprocessing.normalise(torch.tensor(drawn.images))).softmax(
        dim=1
    )
    np.testing.assert_allclose(drawn.probabilities, expected, atol=1e-6)
    assert len(np.unique(drawn.images, axis=0)) == 8
    predictor.check()

    pixels = [np.asarray(Image.open(p)) for p in sorted(layout.processed.glob("val/*/*.png"))]
    answers = predictor.predict(np.stack(pixels)).argmax(axis=1)
    distribution = predictor.distribution
    assert distribution.images == len(pixels) == 18
    assert distribution.predictions == tuple(np.bincount(answers, minlength=3) / 18)
    dark = np.mean([(image < 128).mean() for image in pixels])
    assert sum(distribution.intensity[:8]) == pytest.approx(dark)


def test_int8_is_kept_where_it_costs_little(layout, monkeypatch):
    directory, _ = train("convnext_model", layout, "trainer.max_epochs=1")
    record = bundle.verify(directory)
    assert record.int8.accepted
    rounded = Predictor(directory, int8=True)
    assert (rounded.runtime, rounded.warning) == ("onnx-int8", None)
    rounded.check()
    images = np.stack([np.asarray(Image.open(p)) for p in sorted(layout.processed.glob("val/*/*"))])
    macro_f1 = f1_score(
        np.repeat([0, 1, 2], 6), rounded.predict(images).argmax(axis=1), average="macro"
    )
    assert record.int8.macro_f1 == pytest.approx(macro_f1)
    drawn = reference.read(directory).images
    difference = np.abs(rounded.predict(drawn) - Predictor(directory).predict(drawn)).max()
    assert record.int8.difference == pytest.approx(difference, abs=1e-5)

    monkeypatch.setattr(exporting, "INT8_TOLERANCE", record.int8.difference / 2)
    monkeypatch.setattr(plans, "code_version", lambda *modules: "other code")
    costly, _ = train("convnext_model", layout, "trainer.max_epochs=1")
    told = bundle.verify(costly)
    assert told.int8 == record.int8.model_copy(update={"accepted": False})
    assert not (costly / "model.int8.onnx").exists()
    assert "int8 was asked for" in Predictor(costly, int8=True).warning


def test_onnx_with_other_answers_is_not_published(layout, monkeypatch):
    plan = make_plan("convnext_model", experiment(), layout)
    fit(plan, lambda line: None)

    def other(module: torch.nn.Module, *args: Any, **options: Any) -> None:
        with torch.no_grad():
            module.network.classifier.bias += torch.tensor([0.01, 0, 0])
        exporter(module, *args, **options)
        with torch.no_grad():
            module.network.classifier.bias -= torch.tensor([0.01, 0, 0])

    exporter = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", other)
    with pytest.raises(ParityError, match=r"differs from the network by \d"):
        export(plan)
    assert bundle.versions(layout.models("convnext_model")) == []
    monkeypatch.undo()
    assert export(plan)[1], "the finished fit was kept"


def test_energy_is_recorded_if_the_machine_measures_it(layout, monkeypatch):
    joules = itertools.count()
    monkeypatch.setattr(energy, "_read", lambda: {"package": (next(joules) * 10**6, 10**12)})
    plan = make_plan("convnext_model", experiment(), layout)
    fit(plan, lambda line: None)
    noted = pd.read_csv(plan.work / "history.csv")["joules"]
    assert (noted >= 1).all()
    assert noted.sum() < next(joules)


def test_the_probe_reads_the_cls_embedding_alone(once):
    directory = bundle.latest(once("dinov2_probe")[0].models("dinov2_probe"))
    for name in ("model.onnx", "model.int8.onnx", "distribution.json"):
        assert not (directory / name).exists()
    Predictor(directory).check()
    assert (directory / "reference.safetensors").exists()
    weight = AutoModelForImageClassification.from_pretrained(directory).classifier.weight
    assert weight[:, :32].abs().max() > 0
    assert weight[:, 32:].abs().max() == 0


def test_the_same_training_is_reused_and_another_is_not(trained):
    layout = trained("convnext_model")
    directory = bundle.latest(layout.models("convnext_model"))
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


@pytest.mark.parametrize("asset", ASSETS)
def test_the_fingerprint_is_that_of_what_is_trained(asset, layout, tmp_path, monkeypatch):
    """Location, device and comments in the code do not matter."""

    def fingerprint(*overrides: str) -> str:
        return make_plan(asset, experiment(*overrides), layout).fingerprint

    base = fingerprint()
    assert fingerprint() == base
    assert (fingerprint("seed=1") != base) is (asset == "convnext_model"), "no part in the probe"
    assert fingerprint("deterministic=false") != base
    own, other = "trainer.label_smoothing=0.3", "probe.weight_decays=[1]"
    network = "model.depths=[1,1,2,1]"
    if asset == "dinov2_probe":
        own, other, network = other, own, "probe.num_hidden_layers=2"
    assert fingerprint(own) != base
    assert fingerprint(network) != base
    assert fingerprint(other) == base
    assert fingerprint("keep_versions=2", "margin=0.5", "tracking.required=true") == base

    with monkeypatch.context() as patch:
        patch.setattr(plans, "code_version", lambda *modules: "other code")
        assert fingerprint() != base
    with monkeypatch.context() as patch:
        patch.setattr(networks, "identity", lambda *base: "sha256:other weights")
        assert fingerprint() != base
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        assert fingerprint() == base

    moved = Layout(tmp_path / "elsewhere")
    moved.root.mkdir()
    layout.processed.rename(moved.processed)
    assert make_plan(asset, experiment(), moved).fingerprint == base
    moved.processed.rename(layout.processed)
    record = DatasetRecord.read(layout.processed)
    changed = record.model_copy(update={"data_version": "0" * 64})
    (layout.processed / DATASET_FILE).write_text(changed.model_dump_json())
    assert fingerprint() != base


def test_export_without_a_fit_says_so(layout):
    plan = make_plan("convnext_model", experiment(), layout)
    with pytest.raises(ExportError, match="run the fit first"):
        export(plan)


def test_a_loss_that_is_not_finite_stops_the_training(layout):
    plan = make_plan("convnext_model", experiment("model.lr=1e20"), layout)
    with pytest.raises(TrainingError, match=r"not finite.*lower model\.lr"):
        fit(plan, lambda line: None)
    assert not plan.finished


def test_forced_it_trains_again_and_publishes_the_same_weights(trained):
    layout = trained("convnext_model")
    first = bundle.latest(layout.models("convnext_model"))
    plan = make_plan("convnext_model", experiment(), layout)
    lines: list[str] = []
    fit(plan, lines.append)
    assert lines == [f"reused {first.name}"]
    fit(plan, lines.append, force=True)
    assert [line[:9] for line in lines[1:]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    hashes = bundle.verify(first).files
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
        record = bundle.verify(directory)
        assert record.pretrained is not None
        assert record.pretrained.startswith("sha256:")
        config = json.loads((directory / "config.json").read_text())
        assert list(config["id2label"].values()) == list(CLASSES)
    exported = AutoModelForImageClassification.from_pretrained(
        bundle.latest(layout.models("dinov2_probe"))
    )
    frozen = bodies["probe"].state_dict()
    for key, value in exported.dinov2.state_dict().items():
        assert torch.equal(value, frozen[key]), f"{key} of the frozen backbone has changed"
