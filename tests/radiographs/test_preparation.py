import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dicoms
import numpy as np
import pytest
from PIL import Image
from radiographs import handmade
from radiographs.prepared import alter, cut, data, empty, make, silent, twelve_patients

from cxr_assets.layout import Layout
from cxr_assets.radiographs import decoding, raw
from cxr_assets.radiographs.dataset import (
    DatasetRecord,
    manifest,
)
from cxr_assets.radiographs.decoding import Decoder
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_assets.radiographs.preparation import PreparationError, prepare
from cxr_assets.sources import Source
from cxr_assets.written import RECORD_FILE
from cxr_serving.images.reader import ImageReader
from cxr_serving.model.dataset import Change
from cxr_serving.model.preprocessing import Preprocessing


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return twelve_patients(tmp_path / "chest_xray")


def test_an_image_folder_of_grey_pngs_at_input_size(source, layout):
    record, reused = make(source, layout)
    assert not reused
    files = sorted(path.relative_to(layout.processed) for path in layout.processed.rglob("*.png"))
    assert len(files) == 24 == sum(sum(labels.values()) for labels in record.counts.values())
    assert {path.parts[:2] for path in files} == {
        (split, label) for split in ("train", "val", "test") for label in KAGGLE_CLASSES
    }
    with Image.open(layout.processed / files[0]) as image:
        assert (image.mode, image.size, image.format) == ("L", (32, 32), "PNG")


def test_the_manifest_has_a_row_for_every_source_image(source, layout):
    (source / "train/PNEUMONIA/unnamed.jpeg").write_bytes(
        (source / "train/NORMAL/IM-0001-0001.jpeg").read_bytes() + b"\0"
    )
    record, _ = make(source, layout)
    rows = manifest(layout.processed).set_index("path")
    assert len(rows) == 25
    image = rows.loc["test/PNEUMONIA/person10_bacteria_21.jpeg"]
    assert (image["split"], image["class"], image["kept"]) == ("test", "bacterial_pneumonia", True)
    assert (image["width"], image["height"]) == (70, 50)
    expected = hashlib.sha256((source / image.name).read_bytes()).hexdigest()
    assert image["sha256"] == expected
    unnamed = rows.loc["train/PNEUMONIA/unnamed.jpeg"]
    assert not unnamed["kept"]
    assert "_bacteria_" in unnamed["reason"]
    assert sum(record.skipped.values()) == 1


def test_patients_stay_whole_and_test_is_kaggles(source, layout):
    make(source, layout)
    rows = manifest(layout.processed)
    assert rows.groupby("patient")["split"].nunique().max() == 1
    assert (rows["path"].str.startswith("test/") == (rows["split"] == "test")).all()


def test_the_same_content_and_settings_are_reused_and_others_are_not(source, layout):
    first, _ = make(source, layout)
    assert make(source, layout) == (first, True)
    other_size, reused = make(source, layout, image_size=48)
    assert not reused
    assert other_size.data_version != first.data_version
    other_seed, reused = make(source, layout, image_size=48, seed=1)
    assert not reused
    assert other_seed.data_version != other_size.data_version
    assert make(source, layout, image_size=48, seed=1, in_memory_limit=1) == (
        other_seed,
        True,
    )


def miscount(path: Path) -> None:
    record = json.loads(path.read_text())
    record["counts"]["test"]["normal"] += 1
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *(("test/normal/*.png", damage) for damage in (empty, cut, alter, Path.unlink)),
        *(("manifest.parquet", damage) for damage in (empty, cut, alter, Path.unlink)),
        *(("dataset.json", damage) for damage in (empty, cut, miscount, Path.unlink)),
    ],
)
def test_a_dataset_that_is_not_whole_is_set_aside_and_made_again(file, damage, source, layout):
    first, _ = make(source, layout)
    whole = contents(layout.processed)
    for _ in range(2):
        damage(victim := next(layout.processed.glob(file)))
        lines: list[str] = []
        settings = data(source)
        images = raw.collect(settings, KAGGLE_CLASSES, layout, silent)
        assert prepare(layout, images, settings, KAGGLE_CLASSES, lines.append) == (first, False)
        assert contents(layout.processed) == whole
        aside = layout.root / "processed.broken"
        assert lines[0].startswith(f"set aside as {aside} and made again: ")
        assert victim.name in lines[0] or damage is Path.unlink
        assert contents(aside) != whole
        assert sorted(path.name for path in layout.root.iterdir() if path.name[0] != ".") == [
            "processed", "processed.broken", "raw",
        ]  # fmt: skip
    assert make(source, layout) == (first, True)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name != RECORD_FILE}


def test_grey_levels_are_those_of_the_service(source, layout):
    """12 bits in a 16-bit PNG are scaled; blank images are listed and left out."""
    folder = source / "train" / "NORMAL"
    grey = np.random.default_rng(1).integers(0, 4096, (50, 70)).astype(np.uint16)
    Image.fromarray(grey).save(folder / "IM-0004-0091.png")
    Image.new("L", (70, 50), 255).save(folder / "IM-0004-0092.png")
    Image.fromarray((grey >> 8).astype(np.uint8)).save(folder / "IM-0004-0093.png")
    record, _ = make(source, layout, max_corrupt_fraction=0.1)
    assert record.skipped == {"corrupt": 2}
    rows = manifest(layout.processed).set_index("path")
    for name in ("IM-0004-0092.png", "IM-0004-0093.png"):
        assert "blank or nearly so" in rows.loc[f"train/NORMAL/{name}", "reason"]
    with Image.open(layout.processed / rows.loc["train/NORMAL/IM-0004-0091.png", "file"]) as image:
        np.testing.assert_array_equal(
            np.asarray(image), Preprocessing(32).decode(folder / "IM-0004-0091.png")
        )
        assert np.asarray(image).mean() > 100


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


def test_images_with_equal_names_do_not_overwrite_each_other(source, layout):
    twin = source / "train/NORMAL/IM-0001-0001.png"
    Image.fromarray(np.arange(4900, dtype=np.uint32).reshape(70, 70).astype(np.uint8)).save(twin)
    record, _ = make(source, layout)
    assert sum(sum(labels.values()) for labels in record.counts.values()) == 25
    assert len(list(layout.processed.rglob("*.png"))) == 25


def test_a_kill_leaves_the_old_dataset(source, layout):
    old, _ = make(source, layout)
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from cxr_assets.experiment import compose\n"
        "from cxr_assets.layout import Layout\n"
        "from cxr_assets.radiographs import preparation, raw\n"
        "from cxr_serving.model.preprocessing import Preprocessing\n"
        "decode = Preprocessing.decode\n"
        "def slow(self, path):\n"
        "    print('decoding', flush=True)\n"
        "    time.sleep(0.2)\n"
        "    return decode(self, path)\n"
        "Preprocessing.decode = slow\n"
        f"layout = Layout(Path({str(layout.root)!r}))\n"
        f"settings = compose('scratch', ['data.folder={source}', 'data.image_size=40'])\n"
        "images = raw.collect(settings.data, settings.classes, layout, print)\n"
        "preparation.prepare(layout, images, settings.data, settings.classes, print)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "decoding\n":
            break
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert list(layout.root.glob(".processed.*.partial")), "it was killed while writing"
    assert DatasetRecord.read(layout.processed) == old
    assert make(source, layout) == (old, True)
    record, reused = make(source, layout, image_size=40)
    assert (record.image_size, reused) == (40, False)
    assert not list(layout.root.glob(".processed.*.*"))


def inodes(layout) -> dict[str, int]:
    rows = manifest(layout.processed).query("kept")
    places = zip(rows["sha256"], rows["file"], strict=True)
    return {image: (layout.processed / file).stat().st_ino for image, file in places}


def pixels(layout) -> dict[str, bytes]:
    rows = manifest(layout.processed).query("kept")
    places = zip(rows["sha256"], rows["file"], strict=True)
    return {image: (layout.processed / file).read_bytes() for image, file in places}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the source files that are decoded."""
    names: list[str] = []
    write = Decoder.write

    def noted(self, source, expected, target):
        names.append(source.name)
        return write(self, source, expected, target)

    monkeypatch.setattr(Decoder, "write", noted)
    return names


def test_only_new_images_are_decoded_and_the_rest_is_linked(layout, tmp_path, decoded):
    rows = [handmade.row(tmp_path, number) for number in range(12)]
    handmade.make(layout, handmade.images(tmp_path, rows))
    before = inodes(layout)
    decoded.clear()
    rows += [handmade.row(tmp_path, number) for number in (12, 13)]
    _, lines = handmade.make(layout, handmade.images(tmp_path, rows))
    assert sorted(decoded) == ["12.png", "13.png"]
    assert "12 images are unchanged, 2 are new" in lines
    after = inodes(layout)
    assert {image: after[image] for image in before} == before
    grown = pixels(layout)

    decoded.clear()
    handmade.make(layout, handmade.images(tmp_path, rows), seed=1)
    assert not decoded, "another draw has the same images"
    fresh = Layout(tmp_path / "fresh")
    handmade.make(fresh, handmade.images(tmp_path, rows))
    assert pixels(fresh) == grown
    decoded.clear()
    handmade.make(layout, handmade.images(tmp_path, rows), image_size=48)
    assert len(decoded) == 14


def test_other_decoding_code_decodes_all_again(layout, tmp_path, decoded, monkeypatch):
    raw_images = handmade.images(tmp_path, [handmade.row(tmp_path, n) for n in range(12)])
    first, _ = handmade.make(layout, raw_images)
    decoded.clear()
    monkeypatch.setattr(decoding, "version", lambda: "another")
    second, _ = handmade.make(layout, raw_images)
    assert len(decoded) == 12
    assert second.data_version != first.data_version


def test_a_changed_file_of_the_last_dataset_is_made_again(layout, tmp_path, decoded):
    rows = [handmade.row(tmp_path, number) for number in range(12)]
    handmade.make(layout, handmade.images(tmp_path, rows))
    whole = pixels(layout)
    victim = layout.processed / manifest(layout.processed)["file"][0]
    victim.write_bytes(b"changed")
    decoded.clear()
    rows.append(handmade.row(tmp_path, 12))
    handmade.make(layout, handmade.images(tmp_path, rows))
    assert sorted(decoded) == ["0.png", "12.png"]
    assert whole.items() <= pixels(layout).items()


def test_without_links_images_are_copied(layout, tmp_path, decoded, monkeypatch):
    def fail(*paths: object, **options: object) -> None:
        raise OSError("no links on this file system")

    monkeypatch.setattr(os, "link", fail)
    rows = [handmade.row(tmp_path, number) for number in range(13)]
    handmade.make(layout, handmade.images(tmp_path, rows[:12]))
    before = pixels(layout)
    decoded.clear()
    handmade.make(layout, handmade.images(tmp_path, rows))
    assert decoded == ["12.png"]
    assert before.items() <= pixels(layout).items()


def test_an_image_has_the_pixels_that_the_service_reads(layout, tmp_path):
    """8 and 16 bits of PNG and of DICOM."""
    rows = [handmade.row(tmp_path, number) for number in range(10)]
    folder = tmp_path / "ours"
    write_formats(folder, np.random.default_rng(5).integers(0, 256, (4, 60, 40), np.uint8))
    for number, name in enumerate(("10.png", "11.png", "12.dcm", "13"), start=10):
        rows.append(handmade.row(tmp_path, number, path=name))
    record, _ = handmade.make(layout, handmade.images(tmp_path, rows))
    assert record.skipped == {}
    files = manifest(layout.processed).set_index("path")["file"]
    reader = ImageReader()
    for name in ("10.png", "11.png", "12.dcm", "13"):
        expected = reader.read((folder / name).read_bytes(), Preprocessing(32))
        with Image.open(layout.processed / files[name]) as image:
            np.testing.assert_array_equal(np.asarray(image), expected)
    reader.close()


def test_an_image_in_several_formats_counts_once(layout, tmp_path):
    rows = [handmade.row(tmp_path, number) for number in range(10)]
    grey = np.random.default_rng(5).integers(0, 256, (60, 40), np.uint8)
    write_formats(tmp_path / "ours", np.stack([grey] * 4))
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


def write_formats(folder: Path, images: np.ndarray) -> None:
    """Four images as PNG and DICOM, of 8 and 16 bits."""
    deep = images.astype(np.uint16) * 257
    Image.fromarray(images[0]).save(folder / "10.png")
    Image.fromarray(deep[1]).save(folder / "11.png")
    (folder / "12.dcm").write_bytes(dicoms.dicom(images[2]))
    (folder / "13").write_bytes(dicoms.dicom(deep[3], BitsStored=16))


def test_where_dicom_is_not_read_no_image_is_silently_left_out(layout, tmp_path, monkeypatch):
    rows = [handmade.row(tmp_path, number) for number in range(12)]
    (tmp_path / "ours" / "12").write_bytes(dicoms.dicom(np.eye(40, dtype=np.uint8) * 255))
    rows.append(handmade.row(tmp_path, 12, path="12"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "gdcm" else find(n))
    with pytest.raises(PreparationError, match=r"12: DICOM is not read here.*pip install"):
        handmade.make(layout, handmade.images(tmp_path, rows))
    assert not layout.processed.exists()


def test_a_file_that_changes_after_it_was_checked_is_an_error(layout, tmp_path):
    rows = [handmade.row(tmp_path, number) for number in range(12)]
    handmade.write(tmp_path / "ours" / "3.png", 99)
    with pytest.raises(PreparationError, match=r"3\.png has changed .*materialise raw_kaggle"):
        handmade.make(layout, handmade.images(tmp_path, rows))


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


def test_counts_by_source_and_site_and_external_apart(layout, tmp_path):
    external = Source(name="outside", source="table", table="labels.csv", use="test")
    rows = [handmade.row(tmp_path, number, site="north") for number in range(20)]
    rows += [handmade.row(tmp_path, number, "outside") for number in range(20, 23)]
    record, _ = handmade.make(layout, handmade.images(tmp_path, rows, (external,)))
    assert sum(record.sources["ours"].values()) == 20
    assert record.sources["outside"] == {"external": 3}
    assert list(record.sites) == ["north"]
    assert record.counts["external"] == {"normal": 2, "viral_pneumonia": 1}
    assert record.tables == ("ours", "outside")
    assert record.classes == handmade.CLASSES


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


def test_the_record_says_what_changed_and_an_unchanged_run_repeats_it(layout, tmp_path):
    rows = [handmade.row(tmp_path, number, site="north") for number in range(20)]
    first, _ = handmade.make(layout, handmade.images(tmp_path, rows))
    assert first.changes is None
    rows[0] |= {"label": "viral_pneumonia"}
    rows[2:3] = [handmade.row(tmp_path, number, site="south") for number in (20, 22)]
    second, _ = handmade.make(layout, handmade.images(tmp_path, rows))
    assert second.changes is not None
    assert second.changes.since == first.data_version
    assert second.changes.total == Change(added=2, removed=1, relabelled=1)
    assert second.changes.classes["viral_pneumonia"] == Change(relabelled=1)
    assert second.changes.sites == {
        "north": Change(removed=1, relabelled=1), "south": Change(added=2),
    }  # fmt: skip
    assert handmade.make(layout, handmade.images(tmp_path, rows))[0] == second
    next(layout.processed.rglob("*.png")).unlink()
    assert handmade.make(layout, handmade.images(tmp_path, rows))[0] == second
