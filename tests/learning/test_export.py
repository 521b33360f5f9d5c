import os
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from learning.trainings import experiment, train
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import f1_score

from cxr_assets.layout import Layout
from cxr_assets.learning import bundling
from cxr_assets.learning import plan as plans
from cxr_assets.learning.export import ExportError, ParityError, export, prune
from cxr_assets.learning.fit import fit
from cxr_assets.learning.lock import locked
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs import dataset
from cxr_serving.model import reference, store
from cxr_serving.model.network import Logits
from cxr_serving.model.predictor import Predictor


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=6)
    return layout


def test_a_fit_is_published_once_also_if_the_process_ends_before_the_pointer(layout, monkeypatch):
    plan = make_plan("convnext_model", experiment(), layout)
    fit(plan, print)

    def killed(directory: Path, version: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_pointer", killed)
        with pytest.raises(KeyboardInterrupt):
            export(plan)
    [version] = store.versions(plan.bundles)
    assert store.read_pointer(plan.bundles) is None
    assert export(plan) == (plan.bundles / version, False)
    assert store.latest(plan.bundles).name == version
    assert not plan.work.exists()
    fit(plan, print, force=True)
    assert export(plan)[1], "another fit with the same fingerprint"


def test_the_main_model_is_exported_as_onnx_too(layout):
    directory, _ = train("convnext_model", layout, "trainer.flip_averaging=true")
    predictor = Predictor(directory)
    session = onnxruntime.InferenceSession(directory / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    for some in (images, images[:1]):
        pixels = predictor.preprocessing.normalise(torch.tensor(some)).numpy()
        [logits] = session.run(["logits"], {"pixel_values": pixels})
        np.testing.assert_allclose(softmax(logits, axis=1), predictor.predict(some), atol=1e-5)

    expected_answers = reference.read(directory)
    in_torch = Logits(predictor.model, flip_averaging=True)
    expected = in_torch(
        predictor.preprocessing.normalise(torch.tensor(expected_answers.images))
    ).softmax(dim=1)
    np.testing.assert_allclose(expected_answers.probabilities, expected, atol=1e-6)
    assert len(np.unique(expected_answers.images, axis=0)) == 8

    pixels = [np.asarray(Image.open(p)) for p in sorted(layout.processed.glob("val/*/*.png"))]
    answers = predictor.predict(np.stack(pixels)).argmax(axis=1)
    distribution = predictor.distribution
    assert distribution.images == len(pixels) == 18
    assert distribution.predictions == tuple(np.bincount(answers, minlength=3) / 18)
    dark = np.mean([(image < 128).mean() for image in pixels])
    assert sum(distribution.intensity[:8]) == pytest.approx(dark)


def test_int8_is_kept_where_it_costs_little(layout, monkeypatch):
    directory, _ = train("convnext_model", layout, "trainer.max_epochs=1")
    record = store.verify(directory)
    assert record.draw == dataset.DatasetRecord.read(layout.processed).draw
    assert record.int8.accepted
    rounded = Predictor(directory, int8=True)
    assert (rounded.runtime, rounded.warning) == ("onnx-int8", None)
    images = np.stack([np.asarray(Image.open(p)) for p in sorted(layout.processed.glob("val/*/*"))])
    macro_f1 = f1_score(
        np.repeat([0, 1, 2], 6), rounded.predict(images).argmax(axis=1), average="macro"
    )
    assert record.int8.macro_f1 == pytest.approx(macro_f1)
    images = reference.read(directory).images
    difference = np.abs(rounded.predict(images) - Predictor(directory).predict(images)).max()
    assert record.int8.difference == pytest.approx(difference, abs=1e-5)

    monkeypatch.setattr(bundling, "INT8_TOLERANCE", record.int8.difference / 2)
    monkeypatch.setattr(plans, "code_version", lambda *modules: "other code")
    costly, _ = train("convnext_model", layout, "trainer.max_epochs=1")
    rejected = store.verify(costly)
    assert rejected.int8 == record.int8.model_copy(update={"accepted": False})
    assert not (costly / "model.int8.onnx").exists()
    assert "int8 was requested" in Predictor(costly, int8=True).warning


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
    assert store.versions(layout.models("convnext_model")) == []
    monkeypatch.undo()
    assert export(plan)[1], "the finished fit was kept"


def test_export_without_a_fit_says_so(layout):
    plan = make_plan("convnext_model", experiment(), layout)
    with pytest.raises(ExportError, match="run the fit first"):
        export(plan)


def test_bundles_that_a_report_or_a_release_names_are_kept(layout):
    plan = make_plan("convnext_model", experiment("keep_versions=1"), layout)
    names = [
        tiny.publish(
            layout, plan.asset, tiny.convnext(), "data", now=datetime(2026, 1, day, tzinfo=UTC)
        ).name
        for day in range(1, 6)
    ]
    (layout.reports / names[0]).mkdir(parents=True)
    (layout.releases / names[2]).mkdir(parents=True)
    assert prune(plan) == [names[1], names[3]]
    assert store.versions(plan.bundles) == [names[0], names[2], names[4]]


class Crash(Exception):
    pass


def crash(line: str) -> None:
    if line.startswith("epoch 2"):
        raise Crash


def test_abandoned_trainings_are_deleted(layout):
    abandoned, held, recent = (
        make_plan("convnext_model", experiment(f"seed={n}"), layout) for n in range(3)
    )
    for plan, days in ((abandoned, 31), (held, 31), (recent, 29)):
        with pytest.raises(Crash):
            fit(plan, crash)
        for path in (plan.lock, plan.work, *plan.work.iterdir()):
            moment = path.stat().st_mtime - days * 86_400
            os.utime(path, (moment, moment))
    with locked(held, lambda line: None):
        prune(recent)
    assert not abandoned.work.exists()
    assert not abandoned.lock.exists()
    assert (held.work / "last.ckpt").exists()
    assert (recent.work / "last.ckpt").exists()


def test_a_clock_that_is_ahead_of_the_file_system_abandons_no_training(layout, monkeypatch):
    plan = make_plan("convnext_model", experiment(), layout)
    with pytest.raises(Crash):
        fit(plan, crash)

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Ahead":
            return super().now(tz) + timedelta(days=365)

    monkeypatch.setattr(bundling, "datetime", Ahead)
    monkeypatch.setattr(time, "time", lambda: Ahead.now().timestamp())
    prune(plan)
    assert (plan.work / "last.ckpt").exists()


def test_a_fit_on_another_dataset_is_not_published(layout):
    plan = make_plan("dinov2_probe", experiment(), layout)
    fit(plan, lambda line: None)
    path = layout.processed / "dataset.json"
    record = dataset.DatasetRecord.read(layout.processed)
    path.write_text(record.model_copy(update={"data_version": "e" * 64}).model_dump_json())
    with pytest.raises(ExportError, match=r"version eeeeeeee, not .*train it again"):
        export(plan)
    assert not store.versions(plan.bundles)
