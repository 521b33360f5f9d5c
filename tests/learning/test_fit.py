import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from transformers import AutoModelForImageClassification

from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning import networks
from cxr_assets.learning.export import ExportError, export
from cxr_assets.learning.fit import TrainingError, fit
from cxr_assets.learning.module import Classifier
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.learning.probe import LinearProbe
from cxr_assets.radiographs.naming import CLASSES
from cxr_serving import bundle
from cxr_serving.predictor import Predictor

OVERRIDES = (*tiny.NETWORKS, "trainer.max_epochs=3", "trainer.batch_size=4")
ASSETS = ("convnext_model", "dinov2_probe")


def experiment(*overrides: str) -> Experiment:
    return compose("demo", [*OVERRIDES, *overrides])


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, films=6)
    return layout


def train(asset: str, layout: Layout, *overrides: str) -> tuple[Path, list[str]]:
    lines: list[str] = []
    plan = make_plan(asset, experiment(*overrides), layout)
    fit(plan, lines.append)
    directory, published = export(plan, "dagster-run")
    assert published
    return directory, lines


@pytest.mark.parametrize("asset", ASSETS)
def test_a_training_ends_in_a_bundle_that_serves(asset, layout):
    directory, lines = train(asset, layout)
    assert [line[:9] for line in lines if line.startswith("epoch")] == [
        "epoch 1/3", "epoch 2/3", "epoch 3/3",
    ]  # fmt: skip
    assert bundle.latest(layout.models(asset)) == directory
    record = bundle.verify(directory)
    history = pd.read_csv(directory / "history.csv")
    assert record.validation["macro_f1"] == history["val_macro_f1"].max()
    assert (record.classes, record.synthetic, record.seed) == (CLASSES, True, 0)
    assert record.dagster_run_id == "dagster-run"

    films = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    probabilities = Predictor(directory).predict(films)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("asset", "module_class"), [("convnext_model", Classifier), ("dinov2_probe", LinearProbe)]
)
def test_the_checkpoint_alone_rebuilds_the_network(asset, module_class, layout):
    directory, _ = train(asset, layout)
    checkpoint = torch.load(directory / "best.ckpt", weights_only=True)
    hyperparameters = checkpoint["hyper_parameters"]
    assert hyperparameters["num_classes"] == 3
    assert hyperparameters["model_name"] in ("convnextv2-demo", "dinov2-demo")
    rebuilt = module_class.load_from_checkpoint(directory / "best.ckpt", weights_only=True).network
    exported = AutoModelForImageClassification.from_pretrained(directory)
    for key, value in exported.state_dict().items():
        assert torch.equal(rebuilt.state_dict()[key], value), key


def test_the_probe_reads_the_cls_embedding_alone(layout):
    directory, _ = train("dinov2_probe", layout)
    weight = AutoModelForImageClassification.from_pretrained(directory).classifier.weight
    assert weight[:, :32].abs().max() > 0
    assert weight[:, 32:].abs().max() == 0


def test_the_same_training_is_reused_and_another_is_not(layout):
    directory, _ = train("convnext_model", layout)
    plan = make_plan("convnext_model", experiment(), layout)
    assert plan.settled() == f"reused {directory.name}"
    assert export(plan) == (directory, False)
    assert not list(plan.work.parent.iterdir())
    for change in ("seed=1", "trainer.lr=3e-3", "model.depths=[1,1,2,1]", "trainer.patience=2"):
        other = make_plan("convnext_model", experiment(change), layout)
        assert other.fingerprint != plan.fingerprint, change
        assert other.settled() is None
    assert make_plan("convnext_model", experiment("probe.lr=1"), layout).fingerprint == (
        plan.fingerprint
    ), "a setting of the probe does not concern the main model"


def test_the_fingerprint_does_not_depend_on_where_the_data_lies(layout, tmp_path):
    moved = Layout(tmp_path / "elsewhere")
    moved.root.mkdir()
    layout.processed.rename(moved.processed)
    here = make_plan("dinov2_probe", experiment(), moved).fingerprint
    moved.processed.rename(layout.processed)
    assert make_plan("dinov2_probe", experiment(), layout).fingerprint == here


def test_export_without_a_fit_says_so(layout):
    plan = make_plan("convnext_model", experiment(), layout)
    with pytest.raises(ExportError, match="run the fit first"):
        export(plan)


def test_a_loss_that_is_not_finite_stops_the_training(layout):
    plan = make_plan("convnext_model", experiment("trainer.lr=1e20"), layout)
    with pytest.raises(TrainingError, match=r"not finite.*lower trainer\.lr"):
        fit(plan, lambda line: None)
    assert not plan.finished


def test_the_same_seed_gives_the_same_weights(layout, tmp_path):
    first, _ = train("convnext_model", layout)
    hashes = bundle.verify(first).files
    plan = make_plan("convnext_model", experiment(), layout)
    plan.discard()
    fit(plan, lambda line: None)
    with torch.no_grad():
        again = torch.load(plan.work / "best.ckpt", weights_only=True)["state_dict"]
    saved = torch.load(first / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(again[key], saved[key]) for key in saved)
    assert set(hashes) >= {"model.safetensors", "best.ckpt", "config.json", "history.csv"}


def test_killed_after_an_epoch_it_goes_on_and_ends_the_same(layout, tmp_path):
    straight = Layout(tmp_path / "straight")
    tiny.processed(straight, films=6)
    expected, _ = train("convnext_model", straight)

    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cxr_assets.experiment import compose\n"
        "from cxr_assets.layout import Layout\n"
        "from cxr_assets.learning.fit import fit\n"
        "from cxr_assets.learning.plan import plan as make_plan\n"
        f"plan = make_plan('convnext_model', compose('demo', {list(OVERRIDES)!r}),\n"
        f"                     Layout(Path({str(layout.root)!r})))\n"
        "def report(line):\n"
        "    print(line, flush=True)\n"
        "    if line.startswith('epoch 3'):\n"
        "        sys.stdin.read()\n"
        "fit(plan, report)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 3"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)

    plan = make_plan("convnext_model", experiment(), layout)
    assert not plan.finished
    lines: list[str] = []
    fit(plan, lines.append)
    assert lines[0].startswith("going on from")
    assert [line[:9] for line in lines[1:]] == ["epoch 3/3"], "two epochs were not repeated"
    directory, _ = export(plan)
    ours = AutoModelForImageClassification.from_pretrained(directory).state_dict()
    theirs = AutoModelForImageClassification.from_pretrained(expected).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    history = pd.read_csv(directory / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2]
    assert all(math.isfinite(value) for value in history["train_loss"])


def test_full_trains_from_directories_in_the_hubs_format(layout, tmp_path):
    """The path of experiment=full, with small networks saved as the hub has them."""
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
            "probe.max_epochs=2",
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
