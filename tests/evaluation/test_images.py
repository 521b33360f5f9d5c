import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_assets.evaluation import images
from cxr_assets.layout import Layout
from cxr_assets.radiographs import survey
from cxr_assets.radiographs.dataset import DATASET_FILE, MANIFEST_FILE, DatasetError
from cxr_serving.model.report import ReportError

KNOWN = ["source", "site", "acquired", "view", "sex", "age"]


def test_the_test_split_comes_with_all_that_is_known_of_its_images(layout: Layout) -> None:
    found = images.test_split(layout.processed)
    assert len(found.paths) == 27
    assert all(path.is_file() for path in found.paths)
    first = found.table.set_index("path").loc["test/normal/image-1.png"]
    assert first[KNOWN].tolist() == ["synthetic", "north", "2025-03-01", "PA", "M", 1.0]
    assert found.described == "synthetic images, the test split"


def test_the_validation_split_has_other_images(layout: Layout) -> None:
    found = images.validation_split(layout.processed)
    assert found.described == "synthetic images, the validation split"
    assert sorted(found.table["class"]) == ["bacterial_pneumonia", "normal", "viral_pneumonia"]
    assert all(path.startswith("val/") for path in found.table["path"])


def test_images_of_a_source_for_evaluation_alone_are_apart(layout: Layout) -> None:
    manifest = pd.read_parquet(layout.processed / MANIFEST_FILE)
    second = (manifest["split"] == "external") & manifest["file"].str.contains("-3")
    manifest.loc[second, "source"] = "abroad"
    manifest.loc[second, "patient"] = "unknown/abroad/" + manifest["path"]
    manifest.to_parquet(layout.processed / MANIFEST_FILE)
    assert set(images.test_split(layout.processed).table["source"]) == {"synthetic"}
    found = images.external(layout.processed)
    assert {source: len(part.paths) for source, part in found.items()} == {
        "abroad": 2,
        "outside": 6,
    }
    assert all(path.is_file() for part in found.values() for path in part.paths)
    assert [part.unknown_patients for part in found.values()] == [2, 0]
    assert found["abroad"].described == "synthetic images, the external source abroad"


def test_of_a_table_paths_are_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label,patient\n")
    inventory = pd.DataFrame(
        {
            "source": "table",
            "path": ["b.dcm", "/elsewhere/a.png", "c.png"],
            "label": ["normal", "viral_pneumonia", None],
            "patient": ["table/7", None, None],
            "sha256": ["1", "2", None],
            "width": [10, 20, 0],
            "height": [10, 20, 0],
            "site": ["east", None, None],
            **dict.fromkeys(("acquired", "view", "sex")),
            "age": np.nan,
            "problem": [None, None, "missing: there is no such file"],
        }
    )
    monkeypatch.setattr(survey, "read", lambda *asked: inventory)
    found = images.labelled(table, (), {})
    assert found.paths == [Path("/elsewhere/a.png"), tmp_path / "b.dcm"]
    assert found.table["class"].tolist() == ["viral_pneumonia", "normal"]
    assert (found.patients, found.unknown_patients) == (2, 1)
    assert found.skipped == {"c.png": "missing: there is no such file"}
    assert found.described == "images of the table labels.csv"


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    for find in (images.test_split, images.validation_split, images.external):
        with pytest.raises(DatasetError, match="materialise processed_dataset first"):
            find(tmp_path)


def test_a_count_that_does_not_fit_the_manifest_is_rejected(layout: Layout) -> None:
    path = layout.processed / DATASET_FILE
    record = json.loads(path.read_text())
    record["counts"]["test"]["normal"] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(ReportError, match=r"lists 27 test images, dataset\.json counts 28"):
        images.test_split(layout.processed)
