from pathlib import Path

import pytest
from radiographs.folders import NAMES, write_image

from cxr_assets.radiographs import folder
from cxr_assets.radiographs.inventory import RawDataError
from cxr_assets.sources import Source


def of(use: str, place: Path) -> Source:
    return Source.model_validate({"name": "ours", "source": "folder", "folder": place, "use": use})


def test_only_the_splits_that_a_source_is_used_for_are_needed(tmp_path):
    write_image(tmp_path / "train/NORMAL/IM-0001-0001.jpeg", 50)
    assert folder.root(tmp_path, of("train", tmp_path)) == tmp_path.resolve()
    with pytest.raises(RawDataError, match="no test/ in"):
        folder.root(tmp_path, of("test", tmp_path))
    with pytest.raises(RawDataError, match=r"no test/NORMAL/ and no test/PNEUMONIA/"):
        folder.root(tmp_path, of("all", tmp_path))


def test_a_file_has_what_its_name_says_and_nothing_else(source):
    name = "train/PNEUMONIA/person12_virus_9.jpeg"
    rows = folder.read("ours", source, folder.splits(source), str).set_index("path")
    assert set(rows.index) == set(NAMES)
    assert rows.loc[name, ["split", "given_label", "patient"]].tolist() == [
        "train", "viral_pneumonia", "ours/virus/person12",
    ]  # fmt: skip
    unknown = ["site", "acquired", "view", "sex", "age", "problem", "row"]
    assert rows.loc[name, unknown].isna().all()


def test_a_name_without_a_class_is_a_row_with_the_reason(source):
    write_image(source / "train/PNEUMONIA/scan.jpeg", 50)
    rows = folder.read("ours", source, folder.splits(source), str).set_index("path")
    assert rows.loc["train/PNEUMONIA/scan.jpeg", "problem"].startswith("unnamed: ")
