import json
from io import BytesIO

import dagster as dg
import pandas as pd
import pytest
import reports
import tiny
from PIL import Image

from cxr_assets.defs import checks
from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DATASET_FILE, MANIFEST_FILE
from cxr_serving.model import bundle
from cxr_serving.model.report import Regression


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = Layout(tmp_path)
    tiny.processed(layout)
    path = layout.processed / MANIFEST_FILE
    images = pd.read_parquet(path)
    images["sha256"] = [f"{number:064x}" for number in range(len(images))]
    images.to_parquet(path)
    return layout


def passed(check, layout: Layout, **resources) -> bool:
    return check(data_root=DataRoot(path=str(layout.root)), **resources).passed


def rewrite(layout: Layout, column: str) -> None:
    """Copy ``column`` of the first training image to the first test image."""
    path = layout.processed / MANIFEST_FILE
    images = pd.read_parquet(path)
    first = {split: images.index[images["split"] == split][0] for split in ("train", "test")}
    images.loc[first["test"], column] = images.loc[first["train"], column]
    images.to_parquet(path)


def test_clean_data_passes(layout):
    assert passed(checks.patients_disjoint, layout)
    assert passed(checks.no_class_empty, layout)
    assert passed(checks.no_duplicates_across_splits, layout)


def test_a_patient_in_two_splits_is_found(layout):
    rewrite(layout, "patient")
    assert not passed(checks.patients_disjoint, layout)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("IM-0009-0001.jpeg", "IM-0009-0001 (1).jpeg"),
        ("IM-0009-0001.jpeg", "Copy of IM-0009-0002.jpeg"),
        ("NORMAL2-IM-0009-0001.jpeg", "normal2-im-0009-0002.JPEG"),
        ("scan seven.png", "scan seven - Copy.png"),
        ("scan seven (copy).png", "Kopie von scan seven.png"),
        ("scan seven.png", "scan seven (1) (1).png"),
    ],
)
def test_names_of_one_patient_in_two_splits_are_found_without_the_parser(layout, train, test):
    assert not passed(checks.patients_disjoint, rename(layout, train, test))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("IM-0009-0001.jpeg", "NORMAL2-IM-0009-0001.jpeg"),
        ("IM-0009-0001.jpeg", "IM-0010-0001 (1).jpeg"),
        ("1.png", "1.png"),  # numbered from 1 in each folder
        ("normal (1).png", "normal (2).png"),  # as Windows numbers what it renames
    ],
)
def test_names_that_do_not_suggest_one_patient_pass(layout, train, test):
    assert passed(checks.patients_disjoint, rename(layout, train, test))


def rename(layout: Layout, train: str, test: str) -> Layout:
    """Set the source names of the first normal image of train and of test."""
    path = layout.processed / MANIFEST_FILE
    images = pd.read_parquet(path)
    for split, name in (("train", train), ("test", test)):
        index = images.index[(images["split"] == split) & (images["class"] == "normal")][0]
        images.loc[index, "path"] = f"{split}/NORMAL/{name}"
    images.to_parquet(path)
    return layout


def test_the_same_image_saved_again_under_another_patients_name_is_found(layout):
    before = Image.open(layout.processed / "test/normal/image-0.png")
    saved = BytesIO()
    before.point(lambda grey: grey * 0.8 + 30).save(saved, "JPEG", quality=80)
    Image.open(saved).save(layout.processed / "train/viral_pneumonia/image-0.png")
    result = checks.patients_disjoint(data_root=DataRoot(path=str(layout.root)))
    assert not result.passed
    assert result.metadata["number_of_pairs"].value == 1
    ((first, second, _),) = result.metadata["pairs"].data
    files = ("test/normal/image-0.png", "train/viral_pneumonia/image-0.png")
    assert {first, second} == {f"synthetic/{file}" for file in files}


def test_a_blank_image_in_two_splits_is_found(layout):
    for file in ("test/normal/image-0.png", "val/normal/image-0.png"):
        Image.new("L", (tiny.SIZE, tiny.SIZE), 90).save(layout.processed / file)
    assert not passed(checks.patients_disjoint, layout)


def test_images_of_unknown_patients_are_a_warning(layout):
    assert passed(checks.patients_known, layout)
    path = layout.processed / DATASET_FILE
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"unknown_patients": 2}))
    result = checks.patients_known(data_root=DataRoot(path=str(layout.root)))
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_an_image_in_two_splits_is_found(layout):
    rewrite(layout, "sha256")
    assert not passed(checks.no_duplicates_across_splits, layout)


def test_an_empty_class_is_found(layout):
    path = layout.processed / DATASET_FILE
    record = json.loads(path.read_text())
    record["counts"]["val"]["normal"] = 0
    path.write_text(json.dumps(record))
    assert not passed(checks.no_class_empty, layout)


def test_a_bundle_that_is_not_whole_is_found(layout):
    check = checks.convnext_bundle_verifies
    assert not passed(check, layout), "no bundle at all"
    directory = tiny.publish(layout, "convnext_model", tiny.convnext(), "d" * 64)
    assert passed(check, layout)
    weights = directory / bundle.WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert not passed(check, layout)


@pytest.mark.parametrize(
    ("interval", "beats"), [([0.03, 0.07], True), ([0.01, 0.09], False), ([-0.01, 0.3], False)]
)
def test_the_probe_must_be_beaten_by_the_margin_beyond_chance(layout, interval, beats):
    difference = reports.difference(0.05, *interval)
    comparison = reports.report().comparison.model_copy(update={"macro_f1": difference})
    reports.write(layout.reports, reports.report(comparison=comparison).content())
    experiment = Experiment(preset="demo", overrides="release.rule.margin=0.02")
    assert passed(checks.beats_probe, layout, experiment=experiment) is beats


@pytest.mark.parametrize(("interval", "worse"), [([-0.1, 0.02], False), ([-0.1, -0.02], True)])
def test_a_model_that_is_worse_than_the_released_one_beyond_chance_is_a_warning(
    layout, interval, worse
):
    difference = reports.difference(-0.04, *interval)
    regression = Regression(
        released="before",
        same_data=True,
        macro_f1=difference,
        accuracy=difference,
        auroc_macro_ovr=None,
    )
    reports.write(layout.reports, reports.report(regression=regression).content())
    result = checks.not_worse_than_released(data_root=DataRoot(path=str(layout.root)))
    assert result.passed is not worse
    assert result.severity == dg.AssetCheckSeverity.WARN


def test_without_a_release_there_is_nothing_to_be_worse_than(layout):
    reports.write(layout.reports)
    assert passed(checks.not_worse_than_released, layout)
