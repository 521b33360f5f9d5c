import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from damage import alter, cut, empty
from PIL import Image
from radiographs import handmade
from radiographs.prepared import data, make, silent, twelve_patients

from cxr_assets.radiographs import raw
from cxr_assets.radiographs.dataset import (
    DatasetRecord,
    manifest,
)
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_assets.radiographs.preparation import PreparationError, prepare
from cxr_assets.sources import Source
from cxr_assets.written import RECORD_FILE
from cxr_serving.images.reader import ImageReader
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
            np.asarray(image), Preprocessing(32).decode(folder / "IM-0004-0091.png").pixels
        )
        assert np.asarray(image).mean() > 100


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


def test_an_image_has_the_pixels_that_the_service_reads(layout, tmp_path):
    """8 and 16 bits of PNG and of DICOM."""
    rows = [handmade.row(tmp_path, number) for number in range(10)]
    folder = tmp_path / "ours"
    handmade.write_formats(folder, np.random.default_rng(5).integers(0, 256, (4, 60, 40), np.uint8))
    for number, name in enumerate(("10.png", "11.png", "12.dcm", "13"), start=10):
        rows.append(handmade.row(tmp_path, number, path=name))
    record, _ = handmade.make(layout, handmade.images(tmp_path, rows))
    assert record.skipped == {}
    files = manifest(layout.processed).set_index("path")["file"]
    reader = ImageReader()
    for name in ("10.png", "11.png", "12.dcm", "13"):
        expected, _ = reader.read((folder / name).read_bytes(), Preprocessing(32))
        with Image.open(layout.processed / files[name]) as image:
            np.testing.assert_array_equal(np.asarray(image), expected)
    reader.close()


def test_a_file_that_changes_after_it_was_checked_is_an_error(layout, tmp_path):
    rows = [handmade.row(tmp_path, number) for number in range(12)]
    handmade.write(tmp_path / "ours" / "3.png", 99)
    with pytest.raises(PreparationError, match=r"3\.png has changed .*materialise raw_kaggle"):
        handmade.make(layout, handmade.images(tmp_path, rows))


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
