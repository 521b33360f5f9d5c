import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from radiographs.folders import NAMES, write_image

from cxr_assets.experiment import compose
from cxr_assets.radiographs import inventory, raw
from cxr_assets.radiographs.naming import KAGGLE_CLASSES

REAL_IMAGES = Path(__file__).parents[3] / "shared" / "radiographs" / "chest_xray"


def test_every_image_has_a_row(source, collect):
    images = collect(source)
    assert images.roots == {"folder": source.resolve()}
    assert not images.synthetic
    assert not images.unchanged
    assert tuple(images.inventory.columns) == inventory.COLUMNS
    rows = images.inventory.set_index("path")
    assert sorted(rows.index) == sorted(NAMES)
    image = rows.loc["train/PNEUMONIA/person12_virus_9.jpeg"]
    assert (image["split"], image["label"], image["patient"]) == (
        "train",
        "viral_pneumonia",
        "folder/virus/person12",
    )
    assert (image["width"], image["height"]) == (40, 30)
    assert image["problem"] is None


@pytest.mark.parametrize("given", ["source", "source/chest_xray"])
def test_a_parent_folder_works_too(source, collect, tmp_path, given):
    assert collect(tmp_path / given).roots["folder"] == source.resolve()


def test_kaggles_doubled_folder_is_found_and_read_once(source, collect):
    (source / "chest_xray").mkdir()
    for split in ("train", "test"):
        shutil.copytree(source / split, source / "chest_xray" / split)
    assert len(collect(source).inventory) == len(NAMES)
    for split in ("train", "test"):
        shutil.rmtree(source / split)
    assert collect(source).roots["folder"] == (source / "chest_xray").resolve()


def test_a_folder_whose_name_is_not_utf8_is_named(source, collect):
    odd = source.rename(Path(os.fsdecode(os.fsencode(source.parent) + b"/r\xf6ntgen")))
    said = r"r\\udcf6ntgen is not UTF-8: rename it"
    link = odd.with_name("link")
    link.symlink_to(odd)
    with pytest.raises(raw.RawDataError, match=said):
        collect(link)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("train/NORMAL", "no normal image to train on .*chest_xray/train.* like NORMAL/IM"),
        ("train/PNEUMONIA", "no bacterial_pneumonia image to train on .*chest_xray/train"),
        ("test/NORMAL", "no normal image to test on .*chest_xray/test"),
        ("test", "no test/NORMAL/ and no test/PNEUMONIA/ in .*chest_xray"),
    ],
)
def test_a_missing_folder_is_named(source, collect, missing, message):
    shutil.rmtree(source / missing)
    with pytest.raises(raw.RawDataError, match=rf"{message}.*docs/data"):
        collect(source)


@pytest.mark.parametrize("name", NAMES[4:])
def test_a_class_without_an_image_is_named(source, collect, name):
    (source / name).write_bytes(b"no image any more")
    with pytest.raises(raw.RawDataError, match=rf"{Path(name).name}: corrupt.*docs/data") as caught:
        collect(source)
    assert str(source / "test") in str(caught.value)


def test_val_is_optional_and_read_where_it_is(source, collect):
    write_image(source / "val/NORMAL/NORMAL2-IM-1427-0001.jpeg", 77)
    assert set(collect(source).inventory["split"]) == {"train", "test", "val"}


@pytest.mark.parametrize(
    ("folder", "message"), [("nowhere", "not a directory"), ("empty", "no train/ and test/")]
)
def test_a_wrong_folder_is_named(tmp_path, collect, folder, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(raw.RawDataError, match=message) as caught:
        collect(tmp_path / folder)
    assert str(tmp_path / folder) in str(caught.value)


def test_the_source_is_never_written_to(source, collect):
    def state() -> list[tuple[Path, int]]:
        return [(path, path.stat().st_mtime_ns) for path in sorted(source.rglob("*"))]

    before = state()
    collect(source)
    collect(source)
    assert state() == before


def test_read_returns_what_collect_found(source, collect, layout):
    collected = collect(source)
    images = raw.read(layout)
    assert (images.roots, images.data_version, images.synthetic, images.unchanged) == (
        collected.roots,
        collected.data_version,
        collected.synthetic,
        collected.unchanged,
    )
    pd.testing.assert_frame_equal(images.inventory, collected.inventory)


def test_read_without_collect_says_what_to_do(layout):
    with pytest.raises(raw.RawDataError, match="materialise raw_kaggle first"):
        raw.read(layout)


@pytest.mark.parametrize("change", ["moved", "deleted", "altered"])
def test_read_notices_missing_or_changed_images(source, collect, layout, change):
    collect(source)
    if change == "moved":
        source.rename(source.with_name("moved"))
    elif change == "deleted":
        (source / NAMES[3]).unlink()
    else:
        (source / NAMES[3]).write_bytes(b"other")
    with pytest.raises(raw.RawDataError, match=r"materialise raw_kaggle again"):
        raw.read(layout)


def another_hash(inventory: Path) -> None:
    table = pd.read_parquet(inventory)
    table.loc[0, "sha256"] = "0" * 64
    table.to_parquet(inventory)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PAR1 but no more"),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"bacterial", b"bacteriel")),
        another_hash,
    ],
    ids=["empty", "no table", "cut", "altered", "another hash"],
)
def test_a_broken_inventory_is_reported_and_made_again(damage, source, collect, layout, said):
    first = collect(source)
    path = layout.raw / raw.INVENTORY_FILE
    damage(path)
    with pytest.raises(raw.RawDataError, match="materialise raw_kaggle first"):
        raw.read(layout)
    assert collect(source).data_version == first.data_version
    assert f"{path} is broken: all files are read again" in said
    pd.testing.assert_frame_equal(raw.read(layout).inventory, first.inventory)


def test_synthetic_images_are_made_once(layout, said):
    data = compose("demo", ["data.synthetic_patients=3"]).data
    images = raw.collect(data, KAGGLE_CLASSES, layout, said.append)
    assert images.synthetic
    assert images.roots["synthetic"].is_relative_to(layout.raw.resolve())
    assert images.inventory["problem"].isna().all()
    assert raw.collect(data, KAGGLE_CLASSES, layout, said.append).unchanged
    assert "unchanged" in said[-1]
    other = compose("demo", ["data.synthetic_patients=3", "data.seed=6"]).data
    assert (
        raw.collect(other, KAGGLE_CLASSES, layout, said.append).data_version != images.data_version
    )


@pytest.mark.skipif(not REAL_IMAGES.is_dir(), reason=f"no real images in {REAL_IMAGES}")
def test_real_images_are_all_named_and_readable(collect):
    images = collect(REAL_IMAGES)
    assert images.inventory["problem"].isna().all()
    test = images.inventory.query("split == 'test'")["label"].value_counts().to_dict()
    assert test == {"bacterial_pneumonia": 242, "normal": 234, "viral_pneumonia": 148}
    assert len(images.inventory) == 5216
    assert collect(REAL_IMAGES).unchanged
