from pathlib import Path

import pytest
import tiny
import torch
from learning.trainings import ASSETS, experiment

from cxr_assets.layout import Layout
from cxr_assets.learning import base_weights
from cxr_assets.learning import plan as plans
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs.dataset import DATASET_FILE, DatasetError, DatasetRecord


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=6)
    return layout


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
    assert (
        fingerprint("keep_versions=2", "release.rule.margin=0.5", "tracking.required=true") == base
    )
    assert fingerprint("compute=ray", "compute.address=http://head:8265") == base

    with monkeypatch.context() as patch:
        patch.setattr(plans, "code_version", lambda *modules: "other code")
        assert fingerprint() != base
    with monkeypatch.context() as patch:
        patch.setattr(base_weights, "identity", lambda *base: "sha256:other weights")
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


@pytest.mark.parametrize("asset", ASSETS)
def test_the_classes_are_those_of_the_dataset_and_part_of_the_fingerprint(asset, layout, tmp_path):
    other = "classes=[covid,normal,tuberculosis]"
    with pytest.raises(DatasetError, match=r"viral_pneumonia.*tuberculosis.*materialise") as caught:
        make_plan(asset, experiment(other), layout)
    assert str(layout.processed) in str(caught.value)
    base = make_plan(asset, experiment(), layout).fingerprint
    record = DatasetRecord.read(layout.processed)
    renamed = record.model_copy(update={"classes": ("covid", "normal", "tuberculosis")})
    (layout.processed / DATASET_FILE).write_text(renamed.model_dump_json())
    plan = make_plan(asset, experiment(other), layout)
    assert plan.fingerprint != base
    assert list(plan.network["id2label"].values()) == ["covid", "normal", "tuberculosis"]


def test_a_dataset_of_other_draws_is_not_trained_on(layout):
    make_plan("convnext_model", experiment(), layout)
    with pytest.raises(DatasetError, match=r"data\.seed=0, the experiment has 1: materialise"):
        make_plan("convnext_model", experiment("data.seed=1"), layout)


def test_a_broken_bundle_is_not_reused(layout):
    plan = make_plan("convnext_model", experiment(), layout)
    fit(plan, lambda line: None)
    directory, _ = export(plan)
    assert plan.settled() == f"reused {directory.name}"
    (directory / "model.safetensors").write_bytes(b"")
    assert plan.settled() is None
