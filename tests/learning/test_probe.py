import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from learning.probing import of_embedding, plan_of, train
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny import CLASSES
from transformers import AutoModelForImageClassification

from cxr_assets.experiment import ExperimentError, compose
from cxr_assets.layout import Layout
from cxr_assets.learning import networks
from cxr_assets.learning.embeddings import embed
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.radiographs.dataset import kept, labels, read
from cxr_serving.model import store
from cxr_serving.model.preprocessing import Preprocessing


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """18 images to train on, 18 to validate."""
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=6)
    return layout


def test_the_head_is_where_logistic_regression_ends(layout):
    strength = 0.03
    directory, _ = train(layout, f"probe.weight_decays=[{strength}]")
    network = AutoModelForImageClassification.from_pretrained(directory)
    images = kept(layout.processed, "train")
    rows = embed(network.dinov2, layout, images, lambda line: None).double().numpy()
    expected = make_pipeline(
        StandardScaler(),
        LogisticRegression(
            C=1 / (strength * len(images)), class_weight="balanced", tol=1e-8, max_iter=10_000
        ),
    ).fit(rows, labels(images, CLASSES))

    weight, bias = network.classifier.weight.detach(), network.classifier.bias.detach()
    logits = torch.from_numpy(rows) @ weight[:, : rows.shape[1]].double().T + bias.double()
    logits *= store.verify(directory).temperature
    np.testing.assert_allclose(logits.softmax(dim=1), expected.predict_proba(rows), atol=1e-4)


def test_the_exported_network_answers_images_as_the_head_answers_embeddings(layout):
    directory, _ = train(layout)
    network = AutoModelForImageClassification.from_pretrained(directory).eval()
    images = kept(layout.processed, "val")
    pixels = torch.from_numpy(read(layout.processed, images["file"], tiny.SIZE))
    pixels = Preprocessing(tiny.SIZE).normalise(pixels)
    head = network.classifier
    with torch.no_grad():
        rows = embed(network.dinov2, layout, images, lambda line: None)
        expected = rows @ head.weight[:, : rows.shape[1]].T + head.bias
        torch.testing.assert_close(network(pixels).logits, expected, rtol=1e-3, atol=1e-3)
        fitted = expected * store.verify(directory).temperature
        targets = torch.from_numpy(labels(images, CLASSES))
        loss = torch.nn.functional.cross_entropy(fitted, targets)
    history = pd.read_csv(directory / "history.csv")
    best = history.loc[history["val_macro_f1"].idxmax()]
    assert float(loss) == pytest.approx(best["val_loss"], rel=1e-4)


def test_checkpoints_lack_the_backbone_and_the_bundle_has_it(layout, tmp_path):
    config = networks.dinov2_config(compose("demo", tiny.NETWORKS).probe, tiny.SIZE, CLASSES)
    pretrained = networks.build(config)
    pretrained.save_pretrained(tmp_path / "base")
    plan = plan_of(layout, f"probe.pretrained={tmp_path / 'base'}")
    fit(plan, lambda line: None)
    for name in ("last.ckpt", "best.ckpt"):
        state = torch.load(plan.work / name, weights_only=True)["state_dict"]
        assert not [key for key in state if "dinov2" in key]
        assert "network.classifier.weight" in state

    directory, _ = export(plan)
    state = torch.load(directory / "best.ckpt", weights_only=True)["state_dict"]
    served = AutoModelForImageClassification.from_pretrained(directory).state_dict()
    for key, value in served.items():
        if not key.startswith("classifier."):  # calibrated
            assert torch.equal(state[f"network.{key}"], value)
    for key, value in pretrained.dinov2.state_dict().items():
        assert torch.equal(served[f"dinov2.{key}"], value)


def test_every_strength_is_tried_and_of_equals_the_strongest_is_kept(layout):
    # So strong that the head only turns its weights down, and answers the same.
    strengths = [5000.0, 2000.0, 1000.0, 500.0, 200.0]
    directory, lines = train(layout, f"probe.weight_decays={strengths}".replace(" ", ""))
    history = pd.read_csv(directory / "history.csv")
    assert history["weight_decay"].tolist() == pytest.approx(strengths)
    assert len([line for line in lines if line.startswith("epoch")]) == 5
    best = history.index[history["val_macro_f1"] == history["val_macro_f1"].max()]
    assert len(best) > 1
    assert torch.load(directory / "best.ckpt", weights_only=True)["epoch"] == best[0]


def test_less_regularisation_fits_the_training_images_better(layout):
    directory, _ = train(layout, "probe.weight_decays=[10,1,0.1,0.01,0.001]")
    losses = pd.read_csv(directory / "history.csv")["train_loss"]
    assert (losses.diff().dropna() < 0).all()


@pytest.mark.parametrize("how", ["by an error", "by SIGTERM"])
def test_an_interrupted_fit_resumes_and_ends_the_same(layout, tmp_path, how):
    straight = Layout(tmp_path / "straight")
    tiny.processed(straight, images=6)
    expected, _ = train(straight)

    class Stopped(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            if how == "by an error":
                raise Stopped
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises((Stopped, SystemExit)):
        fit(plan_of(layout), stop)
    directory, lines = train(layout)
    assert "embeddings of 36 images reused" in lines
    assert [line[:9] for line in lines if line.startswith("epoch")][-1] == "epoch 3/3"
    ours, theirs = (pd.read_csv(place / "history.csv") for place in (directory, expected))
    assert ours.drop(columns="seconds").equals(theirs.drop(columns="seconds"))
    for name in ("model.safetensors", "config.json"):
        assert (directory / name).read_bytes() == (expected / name).read_bytes()


def test_strengths_out_of_order_are_rejected():
    for strengths in ("[0.1,1]", "[1,1]", "[]", "[1,0]"):
        with pytest.raises(ExperimentError, match=r"probe\.weight_decays"):
            compose("demo", [f"probe.weight_decays={strengths}"])


def test_another_head_embeds_nothing_again_and_another_seed_trains_nothing_again(layout):
    first, lines = train(layout)
    assert of_embedding(lines) == ["embedded 36 of 36 images"]
    again, lines = train(layout, "probe.weight_decays=[1]")
    assert again != first
    assert of_embedding(lines) == ["embeddings of 36 images reused"]
    again, _ = train(layout, "seed=1")
    assert again == first
