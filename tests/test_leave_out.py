"""Which images the benchmark of robustness trains on, and which it tests on."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.leave_out import LeaveOutError, directions, left_out, parts
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs import dataset, naming

# Patient, and number of images.
NORMAL = {"IM-0001": 2, "IM-0007": 1, "NORMAL2-IM-0003": 1, "NORMAL2-IM-0009": 3}
BACTERIAL = {"person1": 1, "person2": 4, "person30": 1, "person40": 1}
VIRAL = {"person1": 1, "person5": 1, "person50": 2}


def kaggle() -> pd.DataFrame:
    rows = [
        {"class": label, "patient": f"folder/{folder}/{name}", "site": None}
        for label, folder, patients in (
            ("normal", "normal", NORMAL),
            ("bacterial_pneumonia", "bacteria", BACTERIAL),
            ("viral_pneumonia", "virus", VIRAL),
        )
        for name, number in patients.items()
        for _ in range(number)
    ]
    unknown = {"class": "normal", "patient": "unknown/folder/x.png", "site": None}
    return pd.DataFrame([*rows, unknown])


def patients(images: pd.DataFrame, split: pd.Series, wanted: str) -> set[str]:
    named = images.loc[split.index[split == wanted], "patient"]
    return set(named.str.removeprefix("folder/"))


def test_each_series_is_left_out_once_with_half_of_the_person_numbers() -> None:
    images = kaggle()
    first, second = directions(images)
    assert first.tested == "IM- and the lower person numbers"
    assert second.tested == "NORMAL2-IM- and the upper person numbers"
    lower = {
        *("normal/IM-0001", "normal/IM-0007", "bacteria/person1", "bacteria/person2"),
        *("virus/person1", "virus/person5"),  # the number in the middle is a lower one
    }
    upper = {
        *("normal/NORMAL2-IM-0003", "normal/NORMAL2-IM-0009", "virus/person50"),
        *("bacteria/person30", "bacteria/person40"),
    }
    assert patients(images, first.split, "test") == patients(images, second.split, "") == lower
    assert patients(images, first.split, "") == patients(images, second.split, "test") == upper
    assert len(first.split) == len(second.split) == len(images) - 1, "nobody knows its series"
    assert first.counts(images) == (
        "trained and validated on 8 images of 5 patients, tested on 10 images of 6 patients"
    )


def test_where_there_are_sites_each_is_left_out_and_no_patient_is_on_both_sides() -> None:
    images = kaggle().assign(site=["east", "west"] * 9 + [None])
    found = directions(images)
    assert [direction.tested for direction in found] == ["east", "west"]
    for direction in found:
        tested = patients(images, direction.split, "test")
        assert tested
        assert not tested & patients(images, direction.split, "")
        outside = images.loc[direction.split.index[direction.split == "test"]]
        assert set(outside["site"]) == {direction.tested}
        assert set(outside["class"]) == set(images["class"])


def test_a_site_that_lacks_a_class_is_trained_on_but_not_left_out() -> None:
    images = kaggle().assign(site=["east", "west"] * 9 + [None])
    images.loc[images["class"] == "viral_pneumonia", "patient"] = ["a", "b", "c", "d"]
    few = pd.DataFrame({"class": "normal", "patient": ["x", "y"], "site": "north"})
    images = pd.concat([images, few], ignore_index=True)
    found = directions(images)
    assert [direction.tested for direction in found] == ["east", "west"]
    assert all({"x", "y"} <= patients(images, one.split, "") for one in found)


def test_images_without_series_and_sites_are_rejected_with_a_remedy() -> None:
    images = kaggle().assign(patient=lambda table: "table/" + table.index.astype(str))
    with pytest.raises(LeaveOutError, match="two sites"):
        directions(images)


def test_a_part_left_out_is_the_test_split_of_a_dataset_and_test_images_take_no_part(
    tmp_path: Path,
) -> None:
    overrides = ["data.synthetic_patients=12", "data.image_size=32", "data.val_fraction=0.4"]
    experiment = compose("demo", overrides)
    images, (first, second) = parts(experiment, tmp_path, lambda line: None)
    every = dataset.manifest(tmp_path / "images" / "processed")
    test = set(every["patient"][every["split"] == "test"])
    layout = Layout(tmp_path / "left-out")
    for direction in (first, second):
        changed = left_out(experiment, images, direction, layout, lambda line: None)
        assert changed.data.image_size == 32
        assert changed.model == experiment.model
        rows = dataset.manifest(layout.processed).query("kept")
        known = rows["patient"].str.removeprefix("table/")
        assert not test & set(known)
        assert (rows.groupby("patient")["split"].nunique() == 1).all()
        assert (rows.groupby("split")["class"].nunique() == 3).all()
        assert set(rows["split"]) == set(naming.SPLITS)
        tested = images.loc[direction.split.index[direction.split == "test"]]
        assert set(known[rows["split"] == "test"]) == set(tested["patient"])
        record = dataset.DatasetRecord.read(layout.processed)
        assert sum(record.counts["test"].values()) == len(tested)
        layout = Layout(tmp_path / "other")
