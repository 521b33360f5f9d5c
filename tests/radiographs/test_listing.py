"""Several sources: what they list together, and what must not be missing."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dicoms
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from radiographs import tables
from radiographs.folders import NAMES

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs import raw, withdrawal
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_assets.sources import Source

Collect = Callable[..., raw.RawImages]


@pytest.fixture
def collect_sources(layout: Layout) -> Collect:
    def run(*sources: Source, classes: tuple[str, ...] = KAGGLE_CLASSES) -> raw.RawImages:
        data = compose("demo").data.model_copy(update={"source": None, "sources": sources})
        return raw.collect(data, classes, layout, lambda line: None)

    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tables.write(tmp_path / "table", *tables.ROWS)


def folder_source(folder: Path, **settings: object) -> Source:
    return Source.model_validate(
        {"name": "kermany", "source": "folder", "folder": folder, **settings}
    )


def test_sources_are_listed_together_and_their_patients_apart(source, table, collect_sources):
    images = collect_sources(folder_source(source), tables.source(table))
    assert images.roots == {"kermany": source.resolve(), "table": table.parent.resolve()}
    assert images.inventory.groupby("source").size().to_dict() == {"kermany": 7, "table": 6}
    assert set(images.inventory["patient"].str.partition("/")[0]) == {"kermany", "table"}
    row = images.inventory.query("path == 'images/a.png'").iloc[0]
    assert images.locate(row["source"], row["path"]) == table.parent / "images/a.png"
    assert collect_sources(folder_source(source), tables.source(table)).unchanged


def test_what_left_a_table_is_gone_and_a_changed_label_is_a_new_version(
    table, collect_sources, tmp_path
):
    spare = tables.source(tables.write(tmp_path / "spare", *tables.ROWS, seed=1), name="spare")
    first = collect_sources(tables.source(table), spare)
    tables.write(table.parent, *tables.ROWS[1:])
    second = collect_sources(tables.source(table), spare)
    assert "images/a.png" not in set(second.inventory.query("source == 'table'")["path"])
    tables.write(table.parent, tables.ROWS[0].replace("Viral", "normal"), *tables.ROWS[1:])
    third = collect_sources(tables.source(table), spare)
    assert len({first.data_version, second.data_version, third.data_version}) == 3


def test_a_class_may_be_absent_from_one_source_but_not_from_all(source, table, collect_sources):
    normal = [row for row in tables.ROWS if "normal" in row.lower()]
    tables.write(table.parent, *normal)
    with pytest.raises(raw.RawDataError, match=r"no bacterial_pneumonia image to train on .*csv"):
        collect_sources(tables.source(table))
    images = collect_sources(folder_source(source), tables.source(table))
    assert len(images.inventory) == len(NAMES) + len(normal)


def test_other_classes_are_mapped_from_kaggles(source, collect_sources):
    labels = dict.fromkeys(("bacterial_pneumonia", "viral_pneumonia"), "pneumonia")
    images = collect_sources(folder_source(source, labels=labels), classes=("normal", "pneumonia"))
    counts = images.inventory.groupby(["label", "given_label"]).size()
    assert counts["pneumonia"].to_dict() == {"bacterial_pneumonia": 2, "viral_pneumonia": 2}
    with pytest.raises(raw.RawDataError, match=r"no pneumonia .*'bacterial_pneumonia' is no class"):
        collect_sources(folder_source(source), classes=("normal", "pneumonia"))


def test_a_source_needs_only_the_splits_that_it_is_used_for(source, table, collect_sources):
    shutil.rmtree(source / "test")
    with pytest.raises(raw.RawDataError, match="no test/NORMAL/"):
        collect_sources(folder_source(source), tables.source(table))
    trained = collect_sources(folder_source(source, use="train"), tables.source(table))
    assert trained.inventory.query("source == 'kermany'")["split"].unique().tolist() == ["train"]
    with pytest.raises(raw.RawDataError, match="for train or test alone"):
        collect_sources(folder_source(source, use="train"))


def test_images_of_withdrawn_patients_are_left_out_of_every_source(
    table, layout, collect_sources, tmp_path
):
    spare = tables.source(tables.write(tmp_path / "spare", *tables.ROWS, seed=1), name="spare")
    copied = tables.write(tmp_path / "copied", *tables.ROWS)
    withdrawal.record(layout, "table/p1", [], datetime.now(UTC))
    images = collect_sources(tables.source(table), tables.source(copied, name="copied"), spare)
    gone = images.inventory[images.inventory["problem"].str.startswith("withdrawn", na=False)]
    assert gone["source"].tolist() == ["table", "copied"]
    assert set(gone["path"]) == {"images/a.png"}
    assert gone["label"].isna().all()
    assert set(gone["problem"]) == {withdrawal.WITHDRAWN}


def test_png_of_16_bits_and_dicom_are_listed_by_their_headers(tmp_path, source, collect):
    grey = np.random.default_rng(0).integers(0, 4096, (30, 40)).astype(np.uint16)
    Image.fromarray(grey).save(source / "train/NORMAL/IM-0500-0001.png")
    dicom = dicoms.dicom(grey, BitsStored=12)
    (source / "train/NORMAL/IM-0501-0001.dcm").write_bytes(dicom)
    (source / "train/NORMAL/IM-0502-0001.dcm").write_bytes(dicoms.dicom(grey, Modality="CT"))
    rows = collect(source).inventory.set_index("path")[["width", "height", "bits", "problem"]]
    assert rows.loc["train/NORMAL/IM-0500-0001.png"].tolist() == [40, 30, 16, None]
    assert rows.loc["train/NORMAL/IM-0501-0001.dcm"].tolist() == [40, 30, 12, None]
    assert "not a radiograph" in rows.loc["train/NORMAL/IM-0502-0001.dcm", "problem"]
    assert rows.loc[NAMES[0]].tolist() == [40, 30, 8, None]


def test_a_table_that_cannot_be_read_leaves_the_last_inventory(table, collect_sources, layout):
    first = collect_sources(tables.source(table))
    table.write_bytes(table.read_bytes().replace(b"path", b"pfad", 1))
    with pytest.raises(raw.RawDataError, match="no column 'path'; the nearest is 'pfad'"):
        collect_sources(tables.source(table))
    pd.testing.assert_frame_equal(raw.read(layout).inventory, first.inventory)


def test_a_table_is_checked_without_a_data_root(table, tmp_path):
    tables.write(table.parent, *tables.ROWS, "gone.png,Viral,p7", "images/b.png,?,p2")
    before = sorted(tmp_path.rglob("*"))
    images = raw.check(tables.source(table), KAGGLE_CLASSES, {}, lambda line: None)
    said = images.inventory.set_index("path")["problem"].dropna()
    assert said["gone.png"].endswith("No such file or directory (row 8)")
    assert said["images/b.png"].str.contains("labels (?:normal, \\?|\\?, normal)").all()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("given", "missing"), [("train", "test"), ("test", "train")])
def test_a_table_that_gives_all_images_one_split_is_named_with_it(
    given, missing, tmp_path, collect_sources
):
    rows = [
        row.replace(",train,", f",{given},").replace(",test,", f",{given},") for row in tables.ROWS
    ]
    table = tables.write(tmp_path, *rows)
    with pytest.raises(raw.RawDataError, match=rf"no \w+ image to {missing} on .*: all 2 of them "):
        collect_sources(tables.source(table))
    table.write_text(table.read_text().replace(f",{given},", ",,", 5))
    assert len(collect_sources(tables.source(table)).inventory) == 6
