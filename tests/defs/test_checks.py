import json
from io import BytesIO

import dagster as dg
import pandas as pd
import pytest
import reports
import tiny
from PIL import Image

from cxr_assets.defs import checks
from cxr_assets.defs.resources import DataRoot
from cxr_assets.evaluation.rule import judge
from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DATASET_FILE, MANIFEST_FILE
from cxr_serving.model import bundle
from cxr_serving.model.report import Clause


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


@pytest.mark.parametrize("check", checks.clause_checks)
@pytest.mark.parametrize("fulfilled", [True, False])
def test_each_clause_of_the_rule_is_a_warning_with_its_figures(layout, check, fulfilled):
    name = check.check_key.name
    clause = Clause(
        name=name, figure=-0.04, interval=(-0.1, 0.02), limit=0.03, passed=fulfilled, text="It is."
    )
    reports.write(layout.reports, reports.report(clauses=[clause]).content())
    result = check(data_root=DataRoot(path=str(layout.root)))
    assert result.passed is fulfilled
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert result.description == "It is."
    assert result.metadata["figure"].value == -0.04
    assert result.metadata["limit"].value == 0.03
    consequence = result.metadata["consequence"].value
    assert (f"cxr release promote {reports.VERSION}" in consequence) is not fulfilled


def test_there_is_a_check_for_each_clause():
    judged = judge(reports.report(), tiny.RULE)
    assert [check.check_key.name for check in checks.clause_checks] == [one.name for one in judged]
