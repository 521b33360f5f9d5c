import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny import CLASSES
from transformers import AutoModelForImageClassification, PreTrainedModel

from cxr_assets.experiment import ExperimentError, compose
from cxr_assets.layout import Layout
from cxr_assets.learning import embeddings, networks
from cxr_assets.learning.embeddings import embed
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import Plan
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs.dataset import MANIFEST_FILE, kept, labels, manifest, read
from cxr_serving.model import store
from cxr_serving.model.preprocessing import Preprocessing


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """18 images to train on, 18 to validate."""
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=6)
    return layout


def plan_of(layout: Layout, *overrides: str) -> Plan:
    return make_plan("dinov2_probe", compose("demo", [*tiny.NETWORKS, *overrides]), layout)


def train(layout: Layout, *overrides: str) -> tuple[Path, list[str]]:
    lines: list[str] = []
    plan = plan_of(layout, *overrides)
    fit(plan, lines.append)
    return export(plan)[0], lines


def backbone(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    probe = compose("demo", tiny.NETWORKS).probe
    return networks.build(networks.dinov2_config(probe, tiny.SIZE, CLASSES)).dinov2


def of_embedding(lines: list[str]) -> list[str]:
    return [line for line in lines if "embed" in line]


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
    ).fit(rows, labels(images, CLASSES).numpy())

    weight, bias = network.classifier.weight.detach(), network.classifier.bias.detach()
    logits = torch.from_numpy(rows) @ weight[:, : rows.shape[1]].double().T + bias.double()
    logits *= store.verify(directory).temperature
    np.testing.assert_allclose(logits.softmax(dim=1), expected.predict_proba(rows), atol=1e-4)


def test_the_exported_network_answers_images_as_the_head_answers_embeddings(layout):
    directory, _ = train(layout)
    network = AutoModelForImageClassification.from_pretrained(directory).eval()
    images = kept(layout.processed, "val")
    pixels = Preprocessing(tiny.SIZE).normalise(read(layout.processed, images["file"], tiny.SIZE))
    head = network.classifier
    with torch.no_grad():
        rows = embed(network.dinov2, layout, images, lambda line: None)
        expected = rows @ head.weight[:, : rows.shape[1]].T + head.bias
        torch.testing.assert_close(network(pixels).logits, expected, rtol=1e-3, atol=1e-3)
        fitted = expected * store.verify(directory).temperature
        loss = torch.nn.functional.cross_entropy(fitted, labels(images, CLASSES))
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


def test_the_backbone_of_a_bundle_embeds_nothing_again(layout):
    directory, _ = train(layout)
    network = AutoModelForImageClassification.from_pretrained(directory)
    images = pd.concat([kept(layout.processed, "val"), kept(layout.processed, "train")])
    lines: list[str] = []
    embed(network.dinov2, layout, images, lines.append)
    assert lines == ["embeddings of 36 images reused"]


def test_another_split_of_the_same_images_embeds_nothing_again(layout):
    images = pd.concat([kept(layout.processed, "train"), kept(layout.processed, "val")])
    expected = embed(backbone(), layout, images, lambda line: None)
    order = torch.randperm(len(images)).tolist()
    lines: list[str] = []
    again = embed(backbone(), layout, images.iloc[order], lines.append)
    assert lines == ["embeddings of 36 images reused"]
    assert torch.equal(again, expected[order])


def test_new_images_are_embedded_alone_and_as_if_all_were_new(layout, tmp_path):
    images = kept(layout.processed, "test")
    embed(backbone(), layout, images.iloc[4:], lambda line: None)
    lines: list[str] = []
    grown = embed(backbone(), layout, images, lines.append)
    assert lines == ["embeddings of 23 images reused", "embedded 4 of 4 images"]

    fresh = Layout(tmp_path / "fresh")
    tiny.processed(fresh, images=6)
    assert torch.equal(grown, embed(backbone(), fresh, images, lambda line: None))


def test_another_backbone_or_input_size_has_embeddings_of_its_own(layout, tmp_path):
    images = kept(layout.processed, "train")
    ours = embed(backbone(0), layout, images, lambda line: None)
    lines: list[str] = []
    theirs = embed(backbone(1), layout, images, lines.append)
    assert lines == ["embedded 18 of 18 images"]
    assert not torch.equal(ours, theirs)


def test_embeddings_made_before_an_interruption_are_kept(layout, monkeypatch):
    monkeypatch.setattr(embeddings, "_CHUNK", 10)

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(backbone(), layout, kept(layout.processed, "train"), stop)
    lines: list[str] = []
    embed(backbone(), layout, kept(layout.processed, "train"), lines.append)
    assert lines == ["embeddings of 10 images reused", "embedded 8 of 8 images"]


@pytest.mark.parametrize("damage", ["cut off", "emptied", "altered"])
def test_a_broken_file_of_embeddings_is_reported_and_made_again(layout, damage):
    images = kept(layout.processed, "train")
    expected = embed(backbone(), layout, images, lambda line: None)
    [path] = layout.embeddings.glob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut off": content[: len(content) // 2],
            "emptied": b"",
            "altered": content[:-1] + bytes([content[-1] ^ 1]),
        }[damage]
    )
    lines: list[str] = []
    assert torch.equal(embed(backbone(), layout, images, lines.append), expected)
    assert len(lines) == 2
    assert lines[0].startswith(f"{path} is broken")
    assert lines[1] == "embedded 18 of 18 images"
    assert path.read_bytes() == content


def test_embeddings_of_recently_used_backbones_are_kept(layout):
    images = kept(layout.processed, "train").head(2)
    files: list[Path] = []
    for seed in range(4):
        embed(backbone(seed), layout, images, lambda line: None)
        [new] = set(layout.embeddings.glob("*.safetensors")) - set(files)
        os.utime(new, (seed, seed))
        files.append(new)
    embed(backbone(0), layout, images, lambda line: None)
    embed(backbone(4), layout, images, lambda line: None)
    left = set(layout.embeddings.glob("*.safetensors"))
    assert len(left) == 4
    assert set(files) - left == {files[1]}, "the one that was not used for longest"


def remove(layout: Layout, images: pd.DataFrame) -> None:
    """As if images had left the processed dataset."""
    rows = manifest(layout.processed)
    rows[~rows["sha256"].isin(images["sha256"])].to_parquet(layout.processed / MANIFEST_FILE)


def embedded(layout: Layout) -> list[int]:
    """How many images each file of embeddings holds."""
    return [
        len(load_file(path)["images"]) for path in sorted(layout.embeddings.glob("*.safetensors"))
    ]


def test_embeddings_of_removed_images_are_deleted_for_every_backbone(layout):
    """Though nothing new is computed."""
    images = kept(layout.processed, "train")
    for seed in range(2):
        embed(backbone(seed), layout, images, lambda line: None)
    remove(layout, images.iloc[:10])
    lines: list[str] = []
    embed(backbone(), layout, images.iloc[10:], lines.append)
    assert lines == ["embeddings of 8 images reused"]
    assert embedded(layout) == [8, 8]


def test_a_part_of_the_dataset_leaves_the_embeddings_of_the_rest(layout):
    images = kept(layout.processed, "train")
    embed(backbone(), layout, images.iloc[:10], lambda line: None)
    embed(backbone(), layout, images.iloc[10:], lambda line: None)
    assert embedded(layout) == [18]


def test_forgotten_images_leave_every_file_at_once(layout):
    images = kept(layout.processed, "train")
    assert embeddings.forget(layout, images["sha256"]) == 0, "there are none yet"
    for seed in range(2):
        embed(backbone(seed), layout, images, lambda line: None)
    expected = embed(backbone(), layout, images, lambda line: None)
    assert embeddings.forget(layout, images["sha256"].head(3)) == 6
    assert embedded(layout) == [15, 15]
    left = embed(backbone(), layout, images.iloc[3:], lambda line: None)
    assert torch.equal(left, expected[3:])
    [broken, whole] = layout.embeddings.glob("*.safetensors")
    broken.write_bytes(b"cut")
    embeddings.forget(layout, images["sha256"].head(4))
    assert list(layout.embeddings.glob("*.safetensors")) == [whole], "it might hold them"
    embeddings.forget(layout, images["sha256"])
    assert embedded(layout) == []
