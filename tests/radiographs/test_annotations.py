import math
import unicodedata
from pathlib import Path

import pytest
from radiographs import tables

from cxr_assets.radiographs import annotations
from cxr_assets.radiographs.inventory import RawDataError


def rows_of(folder: Path, *rows: str, **settings: object) -> list[dict[str, object]]:
    source = tables.source(tables.write(folder, *rows), **settings)
    read = annotations.read(source, lambda line: None)
    return read.where(read.notna(), None).to_dict("records")


def row_of(folder: Path, **values: str) -> dict[str, object]:
    """The row of a table with one row, of which other values are given."""
    said = {"path": "images/a.png", "label": "x", "patient": "p", **values}
    [row] = rows_of(folder, ",".join(said.get(name, "") for name in tables.HEADER.split(",")))
    return row


def test_a_row_says_all_about_an_image(tmp_path):
    row = rows_of(tmp_path, *tables.ROWS)[0]
    assert row == {
        "source": "table", "row": 2, "path": "images/a.png", "given_label": "Viral",
        "patient": "table/p1", "site": "north", "sex": "F", "split": "train", "view": "PA",
        "acquired": "2024-03-04", "age": 34.0, "problem": None,
    }  # fmt: skip


@pytest.mark.parametrize("view", ["PA", "pa", "P.A.", "PA erect", "Chest PA", "postero-anterior"])
def test_frontal_views_are_used_however_they_are_spelled(tmp_path, view):
    row = row_of(tmp_path, view=view)
    assert (row["view"], row["problem"]) == ("PA", None)


@pytest.mark.parametrize("view", ["LL", "lateral", "PA and lateral", "oblique", "AP axial", "?"])
def test_other_views_are_listed(tmp_path, view):
    assert str(row_of(tmp_path, view=view)["problem"]).startswith(f"view: {view!r} is not frontal")


@pytest.mark.parametrize(
    ("said", "date"),
    [
        ("2024-03-04", "2024-03-04"),
        ("20240304", "2024-03-04"),
        ("2024-03-04T10:11:12.5+01:00", "2024-03-04"),
        ("2024-03-04 00:00:00", "2024-03-04"),
        ("", None),
    ],
)
def test_dates_are_read_as_iso_writes_them(tmp_path, said, date):
    row = row_of(tmp_path, acquired=said)
    assert (row["acquired"], row["problem"]) == (date, None)


@pytest.mark.parametrize("said", ["03/04/2024", "4.3.2024", "2024-02-30", "20241301", "24-03-04"])
def test_other_dates_are_listed(tmp_path, said):
    problem = row_of(tmp_path, acquired=said)["problem"]
    assert str(problem).startswith(f"date: {said!r} is no date such as 2024-03-04")


def test_a_date_of_excel_is_explained(tmp_path):
    assert "looks like a date of Excel: format the column" in str(
        row_of(tmp_path, acquired="45355")["problem"]
    )


@pytest.mark.parametrize(
    ("said", "years"),
    [("34", 34), ("034Y", 34), ("6.5", 6.5), ("018M", 1.5), ("000D", 0), ("", math.nan)],
)
def test_ages_are_years_or_dicoms(tmp_path, said, years):
    row = row_of(tmp_path, age=said)
    assert row["problem"] is None
    assert row["age"] == pytest.approx(years, nan_ok=True)


@pytest.mark.parametrize("said", ["-3", "adult", "131", "1980-01-01"])
def test_other_ages_are_listed(tmp_path, said):
    assert str(row_of(tmp_path, age=said)["problem"]).startswith(f"age: {said!r} is no age")


def test_an_unknown_split_is_listed(tmp_path):
    assert row_of(tmp_path, split="TEST")["split"] == "test"
    assert str(row_of(tmp_path, split="holdout")["problem"]).startswith("split: 'holdout' is none")


def test_a_missing_patient_is_unknown_and_a_missing_path_a_problem(tmp_path):
    assert row_of(tmp_path, patient="")["patient"] is None
    assert row_of(tmp_path, path="")["problem"] == "missing: the row has no path"


@pytest.mark.parametrize(
    "spelled", ["images/a.png", "./images//a.png", "images\\a.png", "images/../images/a.png", "/"]
)
def test_a_file_has_one_path_however_it_is_spelled(tmp_path, spelled):
    path = spelled if spelled != "/" else str(tmp_path / "images" / "a.png")
    assert row_of(tmp_path, path=path)["path"] == "images/a.png"


def test_a_file_outside_the_folder_of_the_table_has_an_absolute_path(tmp_path):
    (tmp_path / "labels").mkdir()
    [row] = rows_of(tmp_path / "labels", "../a.png,x,p,,,,,,")
    assert row["path"] == str(tmp_path.resolve() / "a.png")


def test_settings_are_named_as_the_user_wrote_them(tmp_path):
    table = tables.write(tmp_path, "a.png,x,p", header="paths,label,patient")
    for name, setting in (("table", "data.columns.path"), ("north", "columns.path of the source")):
        with pytest.raises(RawDataError, match=f"nearest is 'paths'.*set {setting}"):
            annotations.read(tables.source(table, name=name), lambda line: None)
    with pytest.raises(RawDataError, match=r"no table .*gone\.csv: data\.table must be a file"):
        annotations.root(tables.source(tmp_path / "gone.csv"))


@pytest.mark.parametrize("said", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_a_name_with_an_accent_is_found_however_a_system_writes_it(tmp_path, said, written):
    name = unicodedata.normalize(written, "Müller.png")
    tables.write(tmp_path, *tables.ROWS)
    (tmp_path / name).write_bytes((tmp_path / "images/a.png").read_bytes())
    row = row_of(tmp_path, path=unicodedata.normalize(said, "Müller.png"))
    assert row["path"] == name


@pytest.mark.parametrize(
    ("first", "second"), [("12", "12.0"), ("é1", unicodedata.normalize("NFD", "é1")), ("a", " a ")]
)
def test_what_programs_make_of_a_name_is_the_same_patient(tmp_path, first, second):
    rows = rows_of(tmp_path, f"images/a.png,x,{first}", f"images/b.png,x,{second}")
    assert rows[0]["patient"] == rows[1]["patient"] == f"table/{first}"


@pytest.mark.parametrize(
    ("first", "second"), [("A1", "a1"), ("012", "12"), ("a 1", "a1"), ("P-1", "P_001")]
)
def test_patients_that_may_be_one_are_named_and_stay_two(tmp_path, first, second):
    lines: list[str] = []
    rows = [f"images/a.png,x,{first}", f"images/b.png,x,{second}"]
    rows += ["images/c.png,x,1-12", "images/d.png,x,11-2"]
    read = annotations.read(tables.source(tables.write(tmp_path, *rows)), lines.append)
    assert read["patient"].nunique() == 4
    [line] = lines
    assert line.startswith("2 names of patients differ only in")
    assert f"{first!r} and {second!r}" in line
