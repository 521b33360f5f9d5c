from pathlib import Path

import pandas as pd
import pytest
from radiographs import tables

from cxr_assets.experiment import Data, compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_assets.radiographs.table import TableError
from cxr_assets.sources import Source

HEADER = "path,label,source\n"


def collect(tmp_path: Path, text: str, *sources: Source) -> raw.RawImages:
    """The images of the sources, and of one more, so that no class is absent."""
    corrections = tmp_path / "corrections.csv"
    corrections.write_text(text)
    spare = tables.source(tables.write(tmp_path / "spare", *tables.ROWS, seed=1), name="spare")
    data = compose("demo").data.model_copy(
        update={"source": None, "sources": (*sources, spare), "corrections": corrections}
    )
    return raw.collect(data, KAGGLE_CLASSES, Layout(tmp_path / "data"), lambda line: None)


def by_path(images: raw.RawImages) -> pd.DataFrame:
    return images.inventory.query("source == 'table'").set_index("path")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return tables.source(tables.write(tmp_path / "images", *tables.ROWS, "images/a.png,normal,p1"))


def test_a_later_row_wins_an_empty_label_changes_nothing_and_the_original_stays(tmp_path, source):
    images = collect(
        tmp_path,
        "path,label,source,note\nimages/b.png,Viral,table,\nimages/b.png,bacterial,table,\n"
        "images/c.png,,table,x\n",
        source,
    )
    rows = by_path(images)
    assert rows.loc["images/b.png", ["label", "given_label"]].tolist() == [
        "bacterial_pneumonia",
        "normal",
    ]
    assert rows.loc["images/c.png", "label"] == "bacterial_pneumonia"
    assert (images.corrected.images, images.corrected.unmatched) == (1, ())


def test_a_correction_resolves_a_conflict(tmp_path, source):
    before = by_path(collect(tmp_path, HEADER + "images/b.png,,table\n", source))
    assert before.loc["images/a.png", "problem"].str.startswith("conflict").all()
    rows = by_path(collect(tmp_path, HEADER + "images/a.png,viral,table\n", source)).loc[
        "images/a.png"
    ]
    assert rows["label"].tolist() == ["viral_pneumonia", None]
    assert rows["problem"].iloc[1].startswith("duplicate")


def test_a_correction_may_leave_an_image_out(tmp_path, source):
    rows = by_path(collect(tmp_path, HEADER + "images/a.png,rotated,table\n", source))
    assert rows.loc["images/a.png", "problem"].str.startswith("excluded").all()


def test_a_correction_holds_for_copies_in_other_sources(tmp_path, source):
    other = tables.source(tables.write(tmp_path / "other", *tables.ROWS), name="other")
    text = HEADER + f"{tmp_path / 'images/images/b.png'},Viral,\n"
    rows = collect(tmp_path, text, source, other).inventory.query(
        "path == 'images/b.png' and source != 'spare'"
    )
    assert rows["label"].tolist() == ["viral_pneumonia", "viral_pneumonia"]


def test_rows_without_an_image_are_reported(tmp_path, source):
    images = collect(tmp_path, "path,label\ngone.png,normal\n", source)
    assert images.corrected.unmatched == ("row 2: gone.png",)
    assert raw.read(Layout(tmp_path / "data")).corrected == images.corrected


def test_an_unknown_label_and_an_ambiguous_path_are_errors_that_name_the_row(tmp_path, source):
    with pytest.raises(TableError, match=r"corrections.csv, row 3: label: 'Vira' is no class"):
        collect(tmp_path, HEADER + "a.png,,\nimages/b.png,Vira,table\n", source)
    rows = [row.replace("a.png", "b.png") for row in tables.ROWS]
    folder = tmp_path / "other"
    tables.write(folder, *rows)
    (folder / "images/b.png").write_bytes((folder / "images/c.png").read_bytes())
    other = tables.source(tables.write(folder, *tables.ROWS[1:]), name="other")
    text = HEADER + "images/b.png,viral,{}\n"
    with pytest.raises(TableError, match=r"row 2: images/b\.png stands in the sources table"):
        collect(tmp_path, text.format(""), source, other)
    changed = collect(tmp_path, text.format("table"), source, other).inventory
    labels = changed[changed["path"] == "images/b.png"].set_index("source")["label"]
    assert labels["table"] == "viral_pneumonia"
    assert labels["other"] != "viral_pneumonia"


def test_the_settings_name_the_file(tmp_path):
    data: Data = compose("demo", [f"data.corrections={tmp_path}/gone.csv"]).data
    with pytest.raises(TableError, match=r"gone\.csv cannot be read"):
        raw.collect(
            data.model_copy(update={"synthetic_patients": 3}),
            KAGGLE_CLASSES,
            Layout(tmp_path),
            lambda line: None,
        )
