"""A table in a folder is the table that it would be in one file."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from radiographs import handmade, tables

from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning.plan import plan
from cxr_assets.radiographs import arrivals, dataset, hive, raw
from cxr_assets.radiographs.inventory import RawDataError
from cxr_assets.radiographs.preparation import prepare
from cxr_assets.radiographs.raw import RawImages

WORDS = ("Viral", "normal", "bacterial")
IMAGES = tuple(
    f"images/{number}.png,{WORDS[number % 3]},p{number},,{('north', 'south')[number % 2]},,,,"
    for number in range(18)
)
# Two cannot be used, one in each half of the table.
ROWS = (
    *IMAGES[:3],
    "images/0.png,Viral,p0,,north,2024-03-04,LL,F,034Y",
    *IMAGES[3:],
    "images/gone.png,Viral,p18,,south,,,,",
)
COLUMNS = tables.HEADER.split(",")


def frame(*rows: str) -> pd.DataFrame:
    return pd.DataFrame([row.split(",") for row in rows], columns=COLUMNS)


def parquet(rows: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path, index=False)


def as_parquet(folder: Path) -> None:
    for number, start in enumerate(range(0, len(ROWS), 7)):
        parquet(frame(*ROWS[start : start + 7]), folder / f"part-{number}.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.parquet.crc").write_bytes(b"crc")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "part-9.parquet").write_bytes(b"PAR1, unfinished")


def as_csv(folder: Path) -> None:
    folder.mkdir()
    for number, rows in enumerate((ROWS[:5], (), ROWS[5:])):
        lines = "\n".join([tables.HEADER, *rows, ""])
        (folder / f"part-{number}.csv").write_text(lines)


def as_hive(folder: Path) -> None:
    """By pyarrow's writer, as Spark and DuckDB lay files out; rows stay in their order."""
    for number, row in enumerate(ROWS):
        table = pa.Table.from_pandas(
            frame(row).assign(batch=f"{number:02}/é"), preserve_index=False
        )
        pq.write_to_dataset(table, folder, partition_cols=["batch", "site"])
    pq.write_metadata(table.schema, folder / "_metadata")


LAYOUTS = [as_parquet, as_csv, as_hive]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The folder that tables and images lie in."""
    for number in range(len(IMAGES)):
        handmade.write(tmp_path / "hospital" / "images" / f"{number}.png", number)
    (tmp_path / "hospital" / "labels.csv").write_text("\n".join([tables.HEADER, *ROWS, ""]))
    return tmp_path / "hospital"


def experiment(table: Path, *more: str) -> Experiment:
    labels = [f"data.labels.{word}={label or 'null'}" for word, label in tables.LABELS.items()]
    small = ("data.image_size=32", "data.val_fraction=0.3", "data.max_corrupt_fraction=0.5")
    return compose("scratch", ["data=table", f"data.table={table}", *labels, *small, *more])


def collect(table: Path, layout: Layout, *more: str) -> RawImages:
    settings = experiment(table, *more)
    return raw.collect(settings.data, settings.classes, layout, lambda line: None)


def problems(images: RawImages) -> dict[str, str]:
    rows = images.inventory[images.inventory["problem"].notna()]
    return dict(zip(rows["path"], rows["problem"], strict=True))


@pytest.mark.parametrize("write", LAYOUTS)
def test_the_same_rows_are_the_same_data_in_one_file_or_in_several(
    write: Callable[[Path], None], images: Path, tmp_path: Path
) -> None:
    write(images / "labels")
    found = {}
    for name in ("labels.csv", "labels"):
        layout = Layout(tmp_path / f"data of {name}")
        settings = experiment(images / name)
        listed = collect(images / name, layout)
        record, _ = prepare(layout, listed, settings.data, settings.classes, lambda line: None)
        training = plan("convnext_model", settings, layout).fingerprint
        found[name] = (listed.data_version, record.data_version, training)
        rows = listed.inventory.drop(columns="problem")
        if name == "labels.csv":
            one, kept = rows, dataset.kept(layout.processed, "train")
    assert found["labels.csv"] == found["labels"]
    pd.testing.assert_frame_equal(rows, one)
    pd.testing.assert_frame_equal(dataset.kept(layout.processed, "train"), kept)


def test_a_problem_says_the_row_and_the_file_that_it_stands_in(
    images: Path, layout: Layout
) -> None:
    as_csv(images / "labels")
    said = problems(collect(images / "labels", layout))
    assert said["images/0.png"].endswith(" (row 5, row 5 of part-0.csv)")
    assert said["images/gone.png"].endswith(" (row 21, row 16 of part-2.csv)")
    line = (images / "labels" / "part-2.csv").read_text().splitlines()[16 - 1]
    assert line.startswith("images/gone.png")


def test_a_new_file_is_new_data_and_changes_no_other_row(images: Path, layout: Layout) -> None:
    as_hive(images / "labels")
    before = collect(images / "labels", layout).inventory
    handmade.write(images / "images" / "new.png", 99)
    new = frame("images/new.png,Viral,p19,,north,,,,").drop(columns="site")
    parquet(new, images / "labels" / "batch=99" / "site=north" / "part-0.parquet")
    after = collect(images / "labels", layout)
    assert not after.unchanged
    rows = after.inventory
    assert rows["path"].tolist() == [*before["path"], "images/new.png"]
    assert rows["site"].iloc[-1] == "north"
    pd.testing.assert_frame_equal(rows.iloc[:-1], before)


def test_folders_are_columns_before_those_in_the_file(images: Path, layout: Layout) -> None:
    rows = frame(*ROWS).rename(columns={"site": "department"}).assign(where="nobody")
    for folder, part in (("St. Mary%2FA", rows[:5]), ("__HIVE_DEFAULT_PARTITION__", rows[5:])):
        parquet(part, images / "labels" / f"where={folder}" / "0.parquet")
    found = collect(images / "labels", layout, "data.columns.site=where").inventory
    assert found["site"].tolist() == ["St. Mary/A"] * 5 + [None] * (len(ROWS) - 5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("part-3.parquet", b"PAR1 and no more", "cannot be read as Parquet .*write it again"),
        ("part-3.csv", f"{tables.HEADER}\nimages/a.png,Vir", "cut off: copy it again or"),
        ("part-3.csv", "", "part-3.csv is empty"),
        (
            "part-3.csv",
            f"{tables.HEADER.replace('label', 'Label')}\n",
            "rename the right one to 'l",
        ),
        ("part-3.csv", "path,label,patient\n", "'acquired'.*part-3.csv has none: write all files"),
        ("part-.csv", "path,label,patient\n", "part-0.parquet has a column 'acquired', but part-"),
        ("c.png", b"\x89PNG\r\n\x1a\n", "All files in .* are parts of one table, but for"),
    ],
)
def test_a_file_that_is_no_part_of_the_table_is_named_with_a_remedy(
    name: str, content: bytes | str, message: str, images: Path, layout: Layout
) -> None:
    as_parquet(images / "labels")
    written = content if isinstance(content, bytes) else content.encode()
    (images / "labels" / name).write_bytes(written)
    with pytest.raises(RawDataError, match=message) as caught:
        collect(images / "labels", layout)
    assert name in str(caught.value)


def test_a_file_that_was_cut_off_is_named(images: Path, layout: Layout) -> None:
    as_parquet(images / "labels")
    part = images / "labels" / "part-1.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(RawDataError, match=r"part-1\.parquet cannot be read as Parquet"):
        collect(images / "labels", layout)


def test_a_folder_without_a_table_is_an_error(images: Path, layout: Layout) -> None:
    (images / "labels").mkdir()
    (images / "labels" / "_SUCCESS").touch()
    with pytest.raises(RawDataError, match="labels cannot be read as a table: there is no CSV"):
        collect(images / "labels", layout)
    (images / "labels" / "part-0.csv").write_text(f"{tables.HEADER}\n")
    with pytest.raises(RawDataError, match=r"the files in .*labels have no rows"):
        collect(images / "labels", layout)
    os.mkfifo(images / "labels" / "part-1.csv")
    with pytest.raises(RawDataError, match=r"part-1\.csv cannot be read .*it is a pipe"):
        collect(images / "labels", layout)


def test_the_order_of_files_is_that_of_their_paths(tmp_path: Path) -> None:
    names = ["a=1/part-0.csv", "a=1/part-1.csv", "a=10/part-0.csv", "a=2/x.csv", "b.csv"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert hive.files(tmp_path) == [tmp_path / name for name in names]


def test_the_sensor_sees_files_that_are_added_replaced_or_removed(images: Path) -> None:
    as_parquet(images / "labels")
    data = experiment(images / "labels").data
    part = images / "labels" / "part-1.parquet"
    found = [arrivals.content(data)]
    (images / "labels" / "_SUCCESS").write_text("again")
    (images / "labels.csv").touch()
    assert arrivals.content(data) == found[0], "no part of the table has changed"
    os.utime(part, (1, 1))
    found.append(arrivals.content(data))
    shutil.copyfile(part, images / "labels" / "part-3.parquet")
    found.append(arrivals.content(data))
    part.unlink()
    found.append(arrivals.content(data))
    assert len(set(found)) == len(found)
    shutil.rmtree(images / "labels")
    with pytest.raises(FileNotFoundError):
        arrivals.content(data)
    (images / "labels").mkdir()
    with pytest.raises(FileNotFoundError):
        arrivals.content(data)
