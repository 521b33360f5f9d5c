import os
import shutil
import sys
from io import StringIO

import pandas as pd
from radiographs.folders import NAMES, write_image

from cxr_assets.radiographs import inventory, raw


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


def test_a_class_folder_may_be_a_link_and_a_loop_ends(source, collect, tmp_path):
    (source / "train/NORMAL").rename(tmp_path / "normal images")
    (source / "train/NORMAL").symlink_to(tmp_path / "normal images")
    (tmp_path / "normal images/loop").symlink_to(source / "train")
    assert sorted(collect(source).inventory["path"]) == sorted(NAMES)


def test_pipes_are_listed_and_never_opened(source, collect):
    os.mkfifo(source / "train/NORMAL/IM-0600-0001.jpeg")
    problems = collect(source).inventory.set_index("path")["problem"]
    assert "it is a pipe" in problems["train/NORMAL/IM-0600-0001.jpeg"]


def test_hidden_images_are_not_ignored(source, collect):
    write_image(source / "train/NORMAL/.IM-0700-0001.jpeg", 9)
    assert "train/NORMAL/.IM-0700-0001.jpeg" in set(collect(source).inventory["path"])


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


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_step_has_a_progress_bar_in_a_terminal(source, collect, monkeypatch, capsys):
    monkeypatch.setattr(inventory, "_PATIENCE", 0)
    collect(source)
    assert capsys.readouterr().err == "", "that of a test is no terminal"
    write_image(source / "train/NORMAL/IM-0800-0001.jpeg", 8)
    monkeypatch.setattr(sys, "stderr", Terminal())
    collect(source)
    assert "1/1 [" in sys.stderr.getvalue(), "what is known is not read again"
