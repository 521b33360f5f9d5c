import importlib.util
import os
import shutil
from pathlib import Path

import dicoms
import numpy as np
import pytest
from PIL import Image
from radiographs import handmade, tables
from radiographs.prepared import make, twelve_patients

from cxr_assets.experiment import compose
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.dataset import (
    DatasetRecord,
    manifest,
)
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_assets.radiographs.preparation import PreparationError, prepare


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return twelve_patients(tmp_path / "chest_xray")


def test_a_file_name_that_is_not_utf8_is_listed_and_left_out(source, layout):
    folder = os.fsencode(source / "train" / "PNEUMONIA")
    odd = Path(os.fsdecode(folder + b"/person1_bacteria_r\xf6ntgen.jpeg"))
    shutil.copy(source / "train/PNEUMONIA/person1_bacteria_7.jpeg", odd)
    (source / "train" / "NORMAL" / "line\u2028separator\n.jpeg").write_bytes(b"")
    first, _ = make(source, layout, max_corrupt_fraction=0.1)
    assert make(source, layout, max_corrupt_fraction=0.1) == (first, True)
    rows = manifest(layout.processed).set_index("path")
    listed = rows.loc[r"train/PNEUMONIA/person1_bacteria_r\udcf6ntgen.jpeg"]
    assert listed["reason"] == "unnamed: the file name is not UTF-8, rename the file"
    assert rows.loc["train/NORMAL/line\u2028separator\n.jpeg", "reason"].startswith("corrupt")
    odd.rename(odd.with_name("person1_bacteria_77.jpeg"))
    assert make(source, layout, max_corrupt_fraction=0.1)[0] != first, "the remedy is followed"
    assert (
        manifest(layout.processed)
        .set_index("path")
        .loc["train/PNEUMONIA/person1_bacteria_77.jpeg", "reason"]
        .startswith("duplicate")
    )


def test_corrupt_images_are_listed_and_too_many_fail(source, layout):
    victim = source / "train/NORMAL/IM-0001-0001.jpeg"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    record, _ = make(source, layout, max_corrupt_fraction=0.1)
    assert record.skipped == {"corrupt": 1}
    rows = manifest(layout.processed).set_index("path")
    assert rows.loc["train/NORMAL/IM-0001-0001.jpeg", "reason"].startswith("corrupt")
    with pytest.raises(PreparationError, match=r"IM-0001-0001.*data\.max_corrupt_fraction=0\.01"):
        make(source, layout, max_corrupt_fraction=0.01)
    assert DatasetRecord.read(layout.processed) == record, "the old dataset must survive"


def test_identical_files_are_never_in_two_splits(source, layout):
    test_image = source / "test/NORMAL/IM-0010-0019.jpeg"
    copies = [source / "train/NORMAL/IM-0010-0077.jpeg", source / "train/NORMAL/IM-0001-0078.jpeg"]
    copies[0].write_bytes(test_image.read_bytes())
    copies[1].write_bytes((source / "train/NORMAL/IM-0001-0001.jpeg").read_bytes())
    record, _ = make(source, layout)
    rows = manifest(layout.processed)
    kept = rows[rows["kept"]]
    assert kept["sha256"].is_unique
    assert record.skipped == {"duplicate": 2}
    assert "test/NORMAL/IM-0010-0019.jpeg" in set(kept["path"])


def test_a_copy_stays_with_its_patient(source, layout):
    folder = source / "train/NORMAL"
    for original in list(folder.iterdir()):
        shutil.copy(original, original.with_stem(f"{original.stem} (1)"))
        with Image.open(original) as image:
            image.save(original.with_stem(f"Copy of {original.stem.lower()}"), quality=60)
    record, _ = make(source, layout)
    rows = manifest(layout.processed)
    assert record.skipped == {"duplicate": 6}
    assert rows[~rows["kept"]]["path"].str.contains(r"\(1\)").all(), "the original stays"
    kept = rows[rows["kept"] & rows["path"].str.contains("train/NORMAL")]
    number = kept["path"].str.extract(r"(?i)(im-\d+)")[0].str.lower()
    assert len(kept) == 12
    assert kept.groupby(number)["split"].nunique().max() == 1


def test_images_of_unknown_patients_are_left_out_unless_configured_otherwise(source, layout):
    known = source / "train/NORMAL/IM-0001-0001.jpeg"
    shutil.copy(known, known.with_name("a.jpeg"))
    for split in ("train", "test"):
        for number in range(2):
            pixels = np.random.default_rng([number, len(split)]).integers(0, 255, (50, 70))
            path = source / split / "NORMAL" / f"child7_{number}.jpeg"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    record, _ = make(source, layout)
    assert (record.unknown_patients, record.skipped) == (0, {"unknown patient": 5})
    rows = manifest(layout.processed).set_index("path")
    assert rows.loc["train/NORMAL/IM-0001-0001.jpeg", "kept"]
    assert "data.unknown_patients=own" in rows.loc["test/NORMAL/child7_0.jpeg", "reason"]
    record, reused = make(source, layout, unknown_patients="own")
    assert (record.unknown_patients, record.skipped, reused) == (4, {"duplicate": 1}, False)
    rows = manifest(layout.processed)
    own = rows[rows["kept"] & rows["path"].str.contains("child7")]
    assert own["patient"].nunique() == 4


def test_without_any_known_patient_the_error_says_how_to_use_the_folder(source, layout):
    for path in list(source.glob("*/NORMAL/*")):
        path.rename(path.with_stem(f"scan {path.stem[-2:]}"))
    with pytest.raises(PreparationError, match=r"no normal image.*data\.unknown_patients=own"):
        make(source, layout)
    record, _ = make(source, layout, unknown_patients="own")
    assert record.unknown_patients == 8


def test_an_image_in_several_formats_counts_once(layout, tmp_path):
    rows = [handmade.row(tmp_path, number) for number in range(10)]
    grey = np.random.default_rng(5).integers(0, 256, (60, 40), np.uint8)
    handmade.write_formats(tmp_path / "ours", np.stack([grey] * 4))
    for name in ("10.png", "11.png", "12.dcm", "13"):
        rows.append(handmade.row(tmp_path, 10, path=name))
    record, _ = handmade.make(layout, handmade.images(tmp_path, rows))
    assert record.skipped == {"duplicate": 3}
    assert sum(map(sum, (labels.values() for labels in record.counts.values()))) == 11
    assert len(list(layout.processed.rglob("*.png"))) == 11
    images = manifest(layout.processed)
    out = images[images["reason"].notna()]
    assert out["reason"].unique().tolist() == ["duplicate: the same pixels as 10.png"]
    assert out[["file", "pixels"]].isna().all(axis=None)


def test_where_dicom_is_not_read_no_image_is_silently_left_out(layout, tmp_path, monkeypatch):
    rows = [handmade.row(tmp_path, number) for number in range(12)]
    (tmp_path / "ours" / "12").write_bytes(dicoms.dicom(np.eye(40, dtype=np.uint8) * 255))
    rows.append(handmade.row(tmp_path, 12, path="12"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "gdcm" else find(n))
    with pytest.raises(PreparationError, match=r"12: DICOM is not read here.*pip install"):
        handmade.make(layout, handmade.images(tmp_path, rows))
    assert not layout.processed.exists()


def test_missing_images_count_as_corrupt_and_other_reasons_do_not(layout, tmp_path):
    rows = [handmade.row(tmp_path, number) for number in range(12)]
    rows += [
        handmade.row(tmp_path, n, label=None, problem="label: an unknown word")
        for n in range(12, 24)
    ]
    record, _ = handmade.make(layout, handmade.images(tmp_path, rows))
    assert record.skipped == {"label": 12}
    gone = [handmade.row(tmp_path, n, problem="missing: no such file") for n in range(24, 26)]
    with pytest.raises(PreparationError, match="2 of 26 images are corrupt or missing"):
        handmade.make(layout, handmade.images(tmp_path, rows + gone))


@pytest.mark.parametrize("classes", [("normal",), ("a", "normal", "viral_pneumonia")])
def test_any_classes_and_an_absent_one_is_an_error(classes, layout, tmp_path):
    rows = [handmade.row(tmp_path, 2 * number) for number in range(12)]
    if "a" not in classes:
        record, _ = handmade.make(layout, handmade.images(tmp_path, rows), classes=classes)
        assert all(list(labels) == ["normal"] for labels in record.counts.values())
        return
    with pytest.raises(PreparationError, match=r"no a image is left in train.*class: none"):
        handmade.make(layout, handmade.images(tmp_path, rows), classes=classes)


def test_too_few_patients_are_an_error_that_counts_them(layout, tmp_path):
    rows = [handmade.row(tmp_path, number) for number in range(4)]
    with pytest.raises(PreparationError, match=r"no normal image is left in .*add patients"):
        handmade.make(layout, handmade.images(tmp_path, rows))


def test_a_table_without_any_patient_says_what_to_set(layout, tmp_path):
    rows = [f"{row.split(',')[0]},{row.split(',')[1]},," for row in tables.ROWS]
    table = tables.write(tmp_path / "source", *rows, header="path,label,patient,site")
    given = {"labels": tables.LABELS, "image_size": 32, "test_fraction": 0.3, "val_fraction": 0.3}
    settings = compose("demo", ["data=table", f"data.table={table}"]).data.model_copy(update=given)
    images = raw.collect(settings, KAGGLE_CLASSES, layout, str)
    with pytest.raises(PreparationError, match=r"data\.unknown_patients=own"):
        prepare(layout, images, settings, KAGGLE_CLASSES, str)
