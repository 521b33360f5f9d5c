import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cxr_assets.experiment import Data, compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs import inventory, raw

REAL_IMAGES = Path(__file__).parents[3] / "shared" / "radiographs" / "chest_xray"
NAMES = (
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-1337-0001.jpeg",
    "train/PNEUMONIA/person12_bacteria_47.jpeg",
    "train/PNEUMONIA/person12_virus_9.jpeg",
    "test/NORMAL/IM-0001-0001.jpeg",
    "test/PNEUMONIA/person1_bacteria_1.jpeg",
    "test/PNEUMONIA/person1_virus_6.jpeg",
)

Collect = Callable[[Path], raw.RawImages]


def write_image(path: Path, shade: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, shade).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source" / "chest_xray"
    for shade, name in enumerate(NAMES):
        write_image(root / name, 10 + shade)
    return root


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def collect(layout: Layout, said: list[str]) -> Collect:
    def run(folder: Path) -> raw.RawImages:
        return raw.collect(folder_data(folder), layout, said.append)

    return run


def folder_data(folder: Path) -> Data:
    return compose("scratch", [f"data.folder={folder}"]).data


def test_every_image_has_a_row(source, collect):
    images = collect(source)
    assert images.root == source.resolve()
    assert not images.synthetic
    assert not images.unchanged
    assert tuple(images.inventory.columns) == inventory.COLUMNS
    rows = images.inventory.set_index("path")
    assert sorted(rows.index) == sorted(NAMES)
    image = rows.loc["train/PNEUMONIA/person12_virus_9.jpeg"]
    assert (image["split"], image["label"], image["patient"]) == (
        "train",
        "viral_pneumonia",
        "virus/person12",
    )
    assert (image["width"], image["height"]) == (40, 30)
    assert image["problem"] is None


@pytest.mark.parametrize("given", ["source", "source/chest_xray"])
def test_a_parent_folder_works_too(source, collect, tmp_path, given):
    assert collect(tmp_path / given).root == source.resolve()


def test_kaggles_doubled_folder_is_found_and_read_once(source, collect):
    (source / "chest_xray").mkdir()
    for split in ("train", "test"):
        shutil.copytree(source / split, source / "chest_xray" / split)
    assert len(collect(source).inventory) == len(NAMES)
    for split in ("train", "test"):
        shutil.rmtree(source / split)
    assert collect(source).root == (source / "chest_xray").resolve()


def test_macos_metadata_files_are_ignored(source, collect):
    for debris in ("train/NORMAL/._IM-0115-0001.jpeg", "train/.DS_Store", "__MACOSX/x.jpeg",
                   "train/__MACOSX/NORMAL/y.jpeg"):  # fmt: skip
        (source / debris).parent.mkdir(parents=True, exist_ok=True)
        (source / debris).write_bytes(b"\0")
    assert sorted(collect(source).inventory["path"]) == sorted(NAMES)


def test_files_without_an_image_or_a_class_are_listed_with_the_reason(source, collect):
    write_image(source / "train/PNEUMONIA/person3.jpeg", 99)
    write_image(source / "train/OTHER/IM-0200-0001.jpeg", 98)
    (source / "train/NORMAL/IM-0300-0001.jpeg").write_bytes(b"")
    (source / "train/NORMAL/notes.txt").write_text("not an image")
    (source / "train/NORMAL/IM-0400-0001.jpeg").symlink_to(source / "gone.jpeg")
    images = collect(source)
    skipped = images.inventory.set_index("path").query("problem.notna()")
    assert len(skipped) == 5
    problems = skipped["problem"]
    assert "_bacteria_" in problems["train/PNEUMONIA/person3.jpeg"]
    assert "OTHER" in problems["train/OTHER/IM-0200-0001.jpeg"]
    assert problems["train/NORMAL/IM-0300-0001.jpeg"] == "corrupt: the file is empty"
    assert problems["train/NORMAL/notes.txt"] == "corrupt: not a JPEG, PNG or DICOM file"
    assert "No such file" in problems["train/NORMAL/IM-0400-0001.jpeg"]
    assert skipped["label"].isna().all()
    assert skipped["patient"].isna().all()


def test_a_class_folder_may_be_a_link_and_a_loop_ends(source, collect, tmp_path):
    (source / "train/NORMAL").rename(tmp_path / "normal images")
    (source / "train/NORMAL").symlink_to(tmp_path / "normal images")
    (tmp_path / "normal images/loop").symlink_to(source / "train")
    assert sorted(collect(source).inventory["path"]) == sorted(NAMES)


def test_pipes_are_listed_and_never_opened(source, collect):
    os.mkfifo(source / "train/NORMAL/IM-0600-0001.jpeg")
    problems = collect(source).inventory.set_index("path")["problem"]
    assert "it is a pipe" in problems["train/NORMAL/IM-0600-0001.jpeg"]
    only = source.parent / "only" / "NORMAL"
    only.mkdir(parents=True)
    os.mkfifo(only / "IM-0600-0001.jpeg")
    with pytest.raises(
        raw.RawDataError, match=r"no image could be read in .*: corrupt: it is a pi"
    ):
        raw.survey(only.parent, str)


def test_hidden_images_are_not_ignored(source, collect):
    write_image(source / "train/NORMAL/.IM-0700-0001.jpeg", 9)
    assert "train/NORMAL/.IM-0700-0001.jpeg" in set(collect(source).inventory["path"])


def test_a_folder_whose_name_is_not_utf8_is_named(source, collect):
    odd = source.rename(Path(os.fsdecode(os.fsencode(source.parent) + b"/r\xf6ntgen")))
    said = r"r\\udcf6ntgen is not UTF-8: rename it"
    with pytest.raises(raw.RawDataError, match=said):
        raw.survey(odd, str)
    link = odd.with_name("link")
    link.symlink_to(odd)
    with pytest.raises(raw.RawDataError, match=said):
        collect(link)


def test_broken_metadata_does_not_exclude_an_image(source, collect):
    name = "train/NORMAL/IM-0800-0001.jpeg"
    write_image(source / name, 9)
    jpeg = (source / name).read_bytes()
    (source / name).write_bytes(jpeg[:20] + b"\xff\xe1\0\x10Exif\0\0no Exif " + jpeg[20:])
    row = collect(source).inventory.set_index("path").loc[name]
    assert (row["problem"], row["width"], row["height"]) == (None, 40, 30)


def test_files_that_an_older_inventory_rejected_are_read_again(source, collect, layout):
    collect(source)
    path = layout.raw / raw.INVENTORY_FILE
    table = pd.read_parquet(path)
    table.loc[table["path"] == NAMES[0], ["width", "problem"]] = 0, "corrupt: animated"
    table.to_parquet(path)
    assert collect(source).inventory["problem"].isna().all()


@pytest.mark.parametrize("missing", ["train/NORMAL", "train/PNEUMONIA", "test/NORMAL", "test"])
def test_a_missing_folder_is_named(source, collect, missing):
    shutil.rmtree(source / missing)
    with pytest.raises(raw.RawDataError, match=rf"no {missing}.* in .*chest_xray.*README"):
        collect(source)


@pytest.mark.parametrize("name", NAMES[4:])
def test_a_class_without_an_image_is_named(source, collect, name):
    (source / name).write_bytes(b"no image any more")
    with pytest.raises(raw.RawDataError, match=rf"{Path(name).name}: corrupt.*README") as caught:
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


def test_the_data_version_depends_on_the_content_only(source, collect, tmp_path):
    here = collect(source)
    copy = tmp_path / "elsewhere"
    shutil.copytree(source, copy)
    there = collect(copy)
    assert there.data_version == here.data_version
    assert there.unchanged
    (copy / NAMES[0]).rename(copy / "train/NORMAL/IM-0999-0001.jpeg")
    renamed = collect(copy)
    assert renamed.data_version != here.data_version
    assert not renamed.unchanged


def test_only_files_of_another_size_or_time_are_read_again(source, collect):
    first = collect(source)
    path = source / NAMES[0]
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert collect(source).unchanged, "same size and time: the hash is taken over"
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed = collect(source)
    assert not changed.unchanged
    assert changed.data_version != first.data_version
    again = collect(source)
    assert again.unchanged
    pd.testing.assert_frame_equal(again.inventory, changed.inventory)


def test_an_unreadable_file_is_retried(source, collect, tmp_path):
    link = source / "train/NORMAL/IM-0400-0001.jpeg"
    link.symlink_to(tmp_path / "later.jpeg")
    assert collect(source).inventory["problem"].notna().sum() == 1
    write_image(tmp_path / "later.jpeg", 55)
    assert collect(source).inventory["problem"].isna().all()


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
    assert (images.root, images.data_version, images.synthetic, images.unchanged) == (
        collected.root,
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
    images = raw.collect(data, layout, said.append)
    assert images.synthetic
    assert images.root.is_relative_to(layout.raw.resolve())
    assert images.inventory["problem"].isna().all()
    assert raw.collect(data, layout, said.append).unchanged
    assert "unchanged" in said[-1]
    other = compose("demo", ["data.synthetic_patients=3", "data.seed=6"]).data
    assert raw.collect(other, layout, said.append).data_version != images.data_version


@pytest.mark.skipif(not REAL_IMAGES.is_dir(), reason=f"no real images in {REAL_IMAGES}")
def test_real_images_are_all_named_and_readable(collect):
    images = collect(REAL_IMAGES)
    assert images.inventory["problem"].isna().all()
    test = images.inventory.query("split == 'test'")["label"].value_counts().to_dict()
    assert test == {"bacterial_pneumonia": 242, "normal": 234, "viral_pneumonia": 148}
    assert len(images.inventory) == 5216
    assert collect(REAL_IMAGES).unchanged
