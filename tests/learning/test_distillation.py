import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from learning.probing import backbone, teacher, train
from learning.trainings import experiment
from safetensors import safe_open

from cxr_assets.layout import Layout
from cxr_assets.learning import distillation
from cxr_assets.learning.embeddings import embed
from cxr_assets.learning.export import export
from cxr_assets.learning.fit import fit
from cxr_assets.learning.module import Classifier
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs.dataset import kept
from cxr_serving.model import store
from cxr_serving.model.predictor import Predictor


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """18 images to train on, 18 to validate."""
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=6)
    return layout


def test_targets_are_standardised_embeddings_of_the_training_images(layout, tmp_path):
    settings = experiment(*teacher(tmp_path / "teacher"))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    targets = distillation.targets(settings, layout, lambda line: None)
    assert torch.equal(torch.get_rng_state(), before), "the training draws other random numbers"
    rows = embed(backbone(), layout, kept(layout.processed, "train"), lambda line: None)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(
        targets, (rows - rows.mean(0)) / rows.std(0, correction=0), rtol=1e-3, atol=1e-3
    )


def test_probe_and_teacher_share_their_embeddings(layout, tmp_path):
    overrides = teacher(tmp_path / "teacher")
    train(layout, *overrides)
    lines: list[str] = []
    distillation.targets(experiment(*overrides), layout, lines.append)
    assert lines == ["embeddings of 18 images reused"]


def test_nothing_that_is_exported_knows_the_teacher_but_the_record(layout, tmp_path):
    overrides = teacher(tmp_path / "teacher")
    plan = make_plan("convnext_model", experiment(*overrides), layout)
    fit(plan, lambda line: None)
    shutil.rmtree(tmp_path / "teacher")
    shutil.rmtree(layout.embeddings)
    directory, _ = export(plan)
    assert "train_distillation" in pd.read_csv(directory / "history.csv")
    assert store.verify(directory).teacher == plan.teacher
    assert plan.teacher.startswith("sha256:")

    without = make_plan("convnext_model", experiment(), layout)
    fit(without, lambda line: None)
    reference, _ = export(without)
    assert store.verify(reference).teacher is None
    assert "train_distillation" not in pd.read_csv(reference / "history.csv")
    ours, theirs = (store.verify(place).files.keys() for place in (directory, reference))
    assert ours == theirs
    config = (reference / "config.json").read_text()
    assert json.loads((directory / "config.json").read_text()) == json.loads(config)
    names = []
    for place in (directory, reference):
        checkpoint = torch.load(place / "best.ckpt", weights_only=True)
        with safe_open(place / "model.safetensors", framework="pt") as weights:
            names.append((set(weights.keys()), checkpoint["state_dict"].keys()))
    assert names[0] == names[1]
    Classifier.load_from_checkpoint(directory / "best.ckpt", weights_only=True)
    Predictor(directory)


def test_the_teacher_is_part_of_the_fingerprint_where_there_is_one(layout, tmp_path):
    def fingerprint(*overrides: str) -> str:
        return make_plan("convnext_model", experiment(*overrides), layout).fingerprint

    one, other = teacher(tmp_path / "one", 0), teacher(tmp_path / "other", 1)
    moved = shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert fingerprint(*one) == fingerprint(one[0], f"probe.pretrained={moved}")
    assert len({fingerprint(), fingerprint(*one), fingerprint(*other)}) == 3
    assert fingerprint(*one) != fingerprint(*one, "trainer.distillation=2")
    assert fingerprint() == fingerprint(one[1]) == fingerprint(other[1])
