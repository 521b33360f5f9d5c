"""Images that were cut off, emptied, replaced, renamed or copied since the last retraining."""

import shutil
from pathlib import Path

import pytest
from damage import cut, empty
from radiographs.prepared import make, twelve_patients

from cxr_assets.layout import Layout
from cxr_assets.radiographs.dataset import DatasetRecord, manifest
from cxr_assets.radiographs.preparation import PreparationError


def test_broken_renamed_and_copied_images_are_listed_and_both_remedies_work(
    tmp_path: Path,
) -> None:
    source, layout = twelve_patients(tmp_path / "chest_xray"), Layout(tmp_path / "data")
    whole, _ = make(source, layout)
    before = manifest(layout.processed).set_index("path")["split"]
    shutil.copytree(source, tmp_path / "backup")
    broken = sorted((source / "train/NORMAL").iterdir())[::2]
    cut(broken[0])
    empty(broken[1])
    broken[2].write_text("not an image")
    folder = source / "train/PNEUMONIA"
    image = next(folder.glob("person1_bacteria_*"))
    shutil.copy(image, folder / "person1_bacteria_800.jpeg")
    image.rename(folder / "person1_bacteria_700.jpeg")

    with pytest.raises(PreparationError, match=r"3 of 25 images are corrupt .*raise the limit"):
        make(source, layout)
    assert DatasetRecord.read(layout.processed) == whole, "the old dataset is kept"
    record, _ = make(source, layout, max_corrupt_fraction=0.2)
    assert record.skipped == {"corrupt": 3, "duplicate": 1}
    rows = manifest(layout.processed).set_index("path")
    for path in broken:
        assert rows.loc[f"train/NORMAL/{path.name}", "reason"].startswith("corrupt")
    renamed = rows.loc["train/PNEUMONIA/person1_bacteria_700.jpeg"]
    assert renamed["kept"]
    assert renamed["split"] == before[f"train/PNEUMONIA/{image.name}"]

    shutil.rmtree(source)
    (tmp_path / "backup").rename(source)
    made, _ = make(source, layout)
    assert made.counts == whole.counts
    assert made.skipped == {}
