import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from damage import alter, cut, empty
from filelock import FileLock, Timeout
from huggingface_hub import ModelCard
from releases import FOLDER, OVERRIDES, SYNTHETIC, body, contents
from tiny import CLASSES
from transformers import AutoImageProcessor, AutoModelForImageClassification

from cxr_assets import written
from cxr_assets.evaluation.report import write_report
from cxr_assets.evaluation.reports import latest_report
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs import membership
from cxr_assets.radiographs.dataset import manifest
from cxr_assets.release import release as release_module
from cxr_assets.release.anonymous import anonymous
from cxr_assets.release.release import ReleaseError, withheld, write_release
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError, BundleRecord
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import Report, ReportError


def test_a_release_is_a_bundle_that_serves_and_loads(reported: Layout) -> None:
    source = store.latest(reported.models("convnext_model"))
    release = write_release(reported, None, SYNTHETIC)
    assert release == reported.releases / source.name
    assert store.read_pointer(reported.releases) is None, "whoever has pushed it moves the pointer"
    original, released = BundleRecord.read(source), store.verify(release)
    assert released.model_copy(update={"files": original.files}) == original
    for name in original.files:
        assert (release / name).read_bytes() == (source / name).read_bytes()
    image = np.random.default_rng(1).integers(0, 256, (1, tiny.SIZE, tiny.SIZE), dtype=np.uint8)
    answers, expected = Predictor(release).answer(image), Predictor(source).answer(image)
    np.testing.assert_array_equal(answers.probabilities, expected.probabilities)
    assert answers.verdicts == expected.verdicts
    assert answers.verdicts is not None, "a release serves with its gate"
    assert AutoModelForImageClassification.from_pretrained(release).config.id2label == dict(
        enumerate(CLASSES)
    )
    assert AutoImageProcessor.from_pretrained(release).size["height"] == tiny.SIZE


def test_holds_the_report(reported: Layout) -> None:
    report = latest_report(reported)
    release = write_release(reported, None, SYNTHETIC)
    assert Report.read(release) == anonymous(Report.read(report), SYNTHETIC.release.rule)
    pictures = [path.name for path in report.glob("*.png")]
    assert len(pictures) == 12
    for name in pictures:
        assert (release / name).read_bytes() == (report / name).read_bytes()
    shown = re.findall(r"!\[.*?\]\((.+?)\)", body(release))
    assert set(shown) == {*pictures, "samples.png"}


def test_the_split_of_the_bundle_goes_along(real: Layout) -> None:
    release = write_release(real, None, FOLDER)
    assert "split.csv" in BundleRecord.read(release).files
    split = membership.read(release)
    assert split.equals(membership.read(store.latest(real.models("convnext_model"))))
    assert len(split) == len(manifest(real.processed).query("kept")) == 18
    pictures = {path.name for path in latest_report(real).glob("*.png")}
    assert {path.name for path in release.glob("*.png")} == pictures


def test_a_report_that_was_judged_by_other_limits_is_not_released(reported: Layout) -> None:
    experiment = compose("demo", [*OVERRIDES, "release.rule.class_loss=0.1"])
    with pytest.raises(ReleaseError, match="materialise metrics_report again"):
        write_release(reported, None, experiment)
    assert not reported.releases.exists()


def test_a_model_that_had_a_teacher_is_not_released_as_if_it_had_none(real: Layout) -> None:
    experiment = FOLDER.model_copy(
        update={"trainer": FOLDER.trainer.model_copy(update={"distillation": 1.0})}
    )
    with pytest.raises(ReleaseError, match="distillation: False, not True"):
        write_release(real, None, experiment)


def test_what_is_withheld_unless_forced(reported: Layout, real: Layout) -> None:
    synthetic, random = (
        BundleRecord.read(store.latest(layout.models("convnext_model")))
        for layout in (reported, real)
    )
    assert "synthetic images" in str(withheld(synthetic))
    assert "random weights" in str(withheld(random))
    assert withheld(random.model_copy(update={"pretrained": "facebook/convnextv2@1"})) is None


def test_what_shows_a_patient_in_two_splits_is_no_release(real: Layout) -> None:
    image = (real.processed / "test/normal/image-0.png").read_bytes()
    (real.processed / "train/normal/image-0.png").write_bytes(image)
    with pytest.raises(ReleaseError, match=r"image-0\.png and .*materialise raw_kaggle"):
        write_release(real, None, FOLDER)


def test_a_release_holds_no_real_images(real: Layout) -> None:
    release = write_release(real, None, FOLDER)
    text = body(release)
    assert "random weights" in text.splitlines()[0]
    assert "Not a medical device" in text
    assert "This release holds no radiograph" in text
    assert not (release / "samples.png").exists()
    assert "synthetic" not in text
    assert ModelCard.load(release / "README.md").data.license == "unknown"
    assert not any(b"somebody" in content for content in contents(release).values())


def test_two_runs_do_not_write_releases_at_once(
    reported: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = written.replace

    def replace(*places: Any) -> None:
        with pytest.raises(Timeout), FileLock(reported.releases_lock, blocking=False):
            pass
        swapped(*places)

    monkeypatch.setattr(written, "replace", replace)
    assert write_release(reported, None, SYNTHETIC).exists()


def test_the_same_inputs_give_the_same_bytes(reported: Layout) -> None:
    first = contents(write_release(reported, None, SYNTHETIC))
    release = write_release(reported, None, SYNTHETIC)
    assert contents(release) == first
    assert [path.name for path in reported.releases.iterdir()] == [release.name]


def test_a_week_in_which_nothing_changed_gives_the_same_release(reported: Layout) -> None:
    release = write_release(reported, None, SYNTHETIC)
    first = contents(release)
    models = [store.latest(reported.models(a)) for a in ("convnext_model", "dinov2_probe")]
    write_report(reported, *models, rule=SYNTHETIC.release.rule)
    assert write_release(reported, None, SYNTHETIC) == release
    assert contents(release) == first


def test_a_failure_while_writing_leaves_the_old_release(
    reported: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = write_release(reported, None, SYNTHETIC)
    before = contents(release)

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(release_module, "model_card", full_disk)
    with pytest.raises(BundleError, match="No space left"):
        write_release(reported, None, SYNTHETIC)
    assert contents(release) == before
    assert not list(reported.releases.glob(".*"))


@pytest.mark.parametrize("damage", [empty, cut, alter, Path.unlink])
def test_a_damaged_release_is_made_again_as_it_was(
    damage: Callable[[Path], None], reported: Layout
) -> None:
    directory = write_release(reported, None, SYNTHETIC)
    whole = contents(directory)
    for name in ("model.safetensors", "README.md", "metrics.json", "bundle.json"):
        damage(directory / name)
        with pytest.raises(BundleError):
            store.verify(directory)
        assert write_release(reported, None, SYNTHETIC) == directory
        assert contents(directory) == whole


def test_a_bundle_that_was_altered_is_not_released(reported: Layout) -> None:
    weights = store.latest(reported.models("convnext_model")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"model\.safetensors does not match"):
        write_release(reported, None, SYNTHETIC)
    assert not reported.releases.exists()


def test_the_released_bundle_is_the_reported_one_not_the_newest(reported: Layout) -> None:
    evaluated = store.latest(reported.models("convnext_model"))
    tiny.publish(reported, "convnext_model", tiny.convnext(), "e" * 64)
    assert write_release(reported, None, SYNTHETIC).name == evaluated.name


@pytest.mark.parametrize(
    ("experiment", "named"),
    [
        (compose("demo", OVERRIDES[1:]), "seed: 3, not 0"),
        (compose("demo", ["seed=3", *tiny.LIMITS]), "data.image_size: 32, not 64"),
        (FOLDER, "synthetic images: True, not False"),
    ],
)
def test_an_experiment_that_did_not_make_the_bundle_is_rejected(
    reported: Layout, experiment: Experiment, named: str
) -> None:
    with pytest.raises(ReleaseError, match=re.escape(named)):
        write_release(reported, None, experiment)


def test_a_dataset_that_changed_since_is_rejected(reported: Layout) -> None:
    shutil.rmtree(reported.processed)
    tiny.processed(reported, synthetic=False)
    with pytest.raises(ReleaseError, match="materialise convnext_model and metrics_report again"):
        write_release(reported, None, SYNTHETIC)


def test_there_is_no_release_without_a_report(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="materialise metrics_report first"):
        write_release(Layout(tmp_path), None, SYNTHETIC)


def test_a_second_report_moves_into_the_release(reported: Layout) -> None:
    release = write_release(reported, None, SYNTHETIC)
    main = store.latest(reported.models("convnext_model"))
    write_report(reported, main, main, rule=SYNTHETIC.release.rule)
    assert write_release(reported, None, SYNTHETIC) == release
    metrics = Report.read(release)
    assert [model.model.asset for model in metrics.models] == ["convnext_model"] * 2
    store.verify(release)
