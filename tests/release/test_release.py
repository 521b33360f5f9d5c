import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from cxr_assets.evaluation.report import (
    METRICS_FILE,
    ReportError,
    latest_report,
    read_metrics,
    write_report,
)
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_assets.radiographs.naming import CLASSES
from cxr_assets.release import release as release_module
from cxr_assets.release.card import model_card
from cxr_assets.release.release import ReleaseError, write_release
from cxr_serving import bundle
from cxr_serving.bundle import BundleError, BundleRecord
from cxr_serving.predictor import Predictor

PHANTOMS = compose("demo", ["seed=3", f"data.image_size={tiny.SIZE}"])
FOLDER = compose(
    "scratch", ["data.folder=/home/somebody/patients", "seed=3", f"data.image_size={tiny.SIZE}"]
)
KAGGLE = compose("full", ["seed=3", f"data.image_size={tiny.SIZE}"])


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def body(release: Path) -> str:
    """The card without its metadata."""
    return ModelCard.load(release / "README.md").text.strip()


def test_a_release_is_a_bundle_that_serves_and_loads(reported: Layout) -> None:
    source = bundle.latest(reported.models("convnext_model"))
    release = write_release(reported, None, PHANTOMS)
    assert release == reported.releases / source.name == bundle.latest(reported.releases)
    original, released = BundleRecord.read(source), bundle.verify(release)
    assert released.model_copy(update={"files": original.files}) == original
    for name in original.files:
        assert (release / name).read_bytes() == (source / name).read_bytes()
    film = np.random.default_rng(1).integers(0, 256, (1, tiny.SIZE, tiny.SIZE), dtype=np.uint8)
    np.testing.assert_array_equal(Predictor(release).predict(film), Predictor(source).predict(film))
    assert AutoModelForImageClassification.from_pretrained(release).config.id2label == dict(
        enumerate(CLASSES)
    )
    assert AutoImageProcessor.from_pretrained(release).size["height"] == tiny.SIZE


def test_holds_the_report(reported: Layout) -> None:
    report = latest_report(reported)
    release = write_release(reported, None, PHANTOMS)
    pictures = [METRICS_FILE, *(path.name for path in report.glob("*.png"))]
    assert len(pictures) == 13
    for name in pictures:
        assert (release / name).read_bytes() == (report / name).read_bytes()
    shown = re.findall(r"!\[.*?\]\((.+?)\)", body(release))
    assert set(shown) == {*pictures, "samples.png"} - {METRICS_FILE}


def test_the_snippet_of_the_card_answers_like_the_predictor(
    reported: Layout, tmp_path: Path
) -> None:
    release = write_release(reported, None, PHANTOMS)
    folder = tmp_path / "copy"
    shutil.copytree(release, folder)
    rng = np.random.default_rng(5)
    shade = np.linspace(0, 190, 90, dtype=np.uint8)[:, None]
    film = rng.integers(0, 60, (90, 70), dtype=np.uint8) + shade
    Image.fromarray(film).save(folder / "film.png")
    [snippet] = re.findall(r"```python\n(.*?)```", body(release), re.DOTALL)
    answer = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    answered = dict(line.split() for line in answer.stdout.splitlines())
    predictor = Predictor(release)
    expected = predictor.predict(predictor.preprocessing.decode(folder / "film.png")[None])[0]
    assert list(answered) == list(CLASSES)
    assert [float(value) for value in answered.values()] == pytest.approx(expected, abs=1e-3)
    assert max(expected) < 0.999, "a saturated answer would compare nothing"


def test_the_metadata_of_the_card_are_the_measured_ones(reported: Layout) -> None:
    release = write_release(reported, "my-group/cxr", PHANTOMS)
    data = ModelCard.load(release / "README.md").data
    metrics = json.loads((release / METRICS_FILE).read_text())
    assert data.pipeline_tag == "image-classification"
    assert data.library_name == "transformers"
    assert data.model_name == "cxr"
    assert data.license == "apache-2.0"
    measured = {result.metric_type: result.metric_value for result in data.eval_results}
    assert measured == {
        "f1": metrics["macro_f1"],
        "accuracy": metrics["accuracy"],
        "roc_auc": metrics["auroc_macro_ovr"],
    }
    assert {result.dataset_revision for result in data.eval_results} == {metrics["data_version"]}
    text = body(release)
    for part in (metrics, metrics["baseline"]):
        for key in ("macro_f1", "accuracy", "auroc_macro_ovr"):
            assert f"{part[key]:.3f}" in text
    assert "--local-dir" in text
    assert "my-group/cxr" in text


def test_phantoms_are_the_first_thing_said(reported: Layout) -> None:
    release = write_release(reported, None, PHANTOMS)
    first, *_ = body(release).splitlines()
    assert "synthetic phantoms" in first
    assert "never seen a radiograph of a patient" in first
    assert "Not a medical device" in body(release)
    assert (release / "samples.png").exists()


def test_real_films_stay_at_home(real: Layout) -> None:
    release = write_release(real, None, FOLDER)
    text = body(release)
    assert "random weights" in text.splitlines()[0]
    assert "Not a medical device" in text
    assert "This release holds no radiograph" in text
    assert not (release / "samples.png").exists()
    assert "phantom" not in text
    assert ModelCard.load(release / "README.md").data.license == "unknown"
    assert not any(b"somebody" in content for content in contents(release).values())


@pytest.mark.parametrize(
    ("pretrained", "licence", "base"),
    [
        ("facebook/convnextv2-tiny-22k-224@9c", "cc-by-nc-4.0", "facebook/convnextv2-tiny-22k-224"),
        ("my-group/convnextv2@main", "unknown", "my-group/convnextv2"),
        ("sha256:" + "a" * 64, "unknown", None),
        (None, "cc-by-4.0", None),
    ],
)
def test_the_terms_of_films_and_base_weights_go_on(
    real: Layout, pretrained: str | None, licence: str, base: str | None
) -> None:
    record = BundleRecord.read(bundle.latest(real.models("convnext_model")))
    card = model_card(
        record.model_copy(update={"pretrained": pretrained}),
        read_metrics(latest_report(real)),
        DatasetRecord.read(real.processed),
        KAGGLE,
        [],
        None,
    )
    assert card.data.license == licence
    assert card.data.base_model == base
    assert (pretrained or "random weights") in card.text
    assert "Mendeley" in card.text


def test_the_command_of_the_card_composes_the_same_experiment(real: Layout) -> None:
    experiment = compose(
        "scratch",
        [
            "data.folder=/home/somebody/patients",
            "model=convnextv2_demo",
            "model.lr=0.002",
            "trainer.augmentation.affine=0",
            "seed=3",
            f"data.image_size={tiny.SIZE}",
        ],
    )
    text = body(write_release(real, None, experiment))
    [preset] = re.findall(r"CXR_EXPERIMENT=(\w+)", text)
    [overrides] = re.findall(r'CXR_OVERRIDES="(.*?)"', text)
    again = compose(preset, overrides.split())
    local = {"data": again.data.model_copy(update={"folder": experiment.data.folder})}
    assert again.model_copy(update=local) == experiment


def test_the_same_inputs_give_the_same_bytes(reported: Layout) -> None:
    first = contents(write_release(reported, None, PHANTOMS))
    release = write_release(reported, None, PHANTOMS)
    assert contents(release) == first
    assert sorted(path.name for path in reported.releases.iterdir()) == sorted(
        [release.name, "latest.json"]
    )


def test_a_failure_while_writing_leaves_the_old_release(
    reported: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = write_release(reported, None, PHANTOMS)
    before = contents(release)

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(release_module, "model_card", full_disk)
    with pytest.raises(BundleError, match="No space left"):
        write_release(reported, None, PHANTOMS)
    assert contents(release) == before
    assert bundle.latest(reported.releases) == release
    assert not list(reported.releases.glob(".*"))


def test_a_bundle_that_was_altered_is_not_released(reported: Layout) -> None:
    weights = bundle.latest(reported.models("convnext_model")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"model\.safetensors does not match"):
        write_release(reported, None, PHANTOMS)
    assert not reported.releases.exists()


def test_the_released_bundle_is_the_reported_one_not_the_newest(reported: Layout) -> None:
    evaluated = bundle.latest(reported.models("convnext_model"))
    tiny.publish(reported, "convnext_model", tiny.convnext(), "e" * 64)
    assert write_release(reported, None, PHANTOMS).name == evaluated.name


@pytest.mark.parametrize(
    ("experiment", "named"),
    [
        (compose("demo", [f"data.image_size={tiny.SIZE}"]), "seed: 3, not 0"),
        (compose("demo", ["seed=3"]), "data.image_size: 32, not 64"),
        (FOLDER, "phantoms: True, not False"),
    ],
)
def test_an_experiment_that_did_not_make_the_bundle_is_refused(
    reported: Layout, experiment: Experiment, named: str
) -> None:
    with pytest.raises(ReleaseError, match=re.escape(named)):
        write_release(reported, None, experiment)


def test_a_dataset_that_changed_since_is_refused(reported: Layout) -> None:
    shutil.rmtree(reported.processed)
    tiny.processed(reported, synthetic=False)
    with pytest.raises(ReleaseError, match="materialise convnext_model and metrics_report again"):
        write_release(reported, None, PHANTOMS)


def test_there_is_no_release_without_a_report(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="materialise metrics_report first"):
        write_release(Layout(tmp_path), None, PHANTOMS)


def test_a_second_report_moves_into_the_release(reported: Layout) -> None:
    release = write_release(reported, None, PHANTOMS)
    main = bundle.latest(reported.models("convnext_model"))
    write_report(reported, main, main)
    assert write_release(reported, None, PHANTOMS) == release
    metrics = json.loads((release / METRICS_FILE).read_text())
    assert metrics["baseline"]["model"]["asset"] == "convnext_model"
    bundle.verify(release)
