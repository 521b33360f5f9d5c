import codecs
import io
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_assets.radiographs import table
from cxr_assets.radiographs.table import TableError, Wanted

COLUMNS = {name: name for name in ("path", "label", "patient", "site")}
WANTED = Wanted(COLUMNS, ("path", "label", "patient"), "data.columns.{}")
LINES = "path,label,patient,site\nä.png,Viral,p1,north\nb.png, Normal ,p2,\n"
ROWS = [["ä.png", "Viral", "p1", "north"], ["b.png", "Normal", "p2", ""]]


def read(path: Path, content: bytes | str, wanted: Wanted = WANTED) -> pd.DataFrame:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return table.read(path, wanted, lambda line: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_and_separators_of_spreadsheets(path, encoding, delimiter, end):
    content = LINES.replace(",", delimiter).replace("\n", end).encode(encoding)
    rows = read(path, content)
    assert rows.to_numpy().tolist() == ROWS
    assert list(rows.index) == [2, 3]


def test_quoted_values_hold_separators_quotes_and_ends_of_lines(path):
    rows = read(path, 'path,"label, as said",patient\n"a, b.png","x ""y""\nz",p1\n',
                Wanted(COLUMNS | {"label": "label, as said"}, WANTED.needed, "{}"))  # fmt: skip
    assert rows.loc[2].to_dict() == {"path": "a, b.png", "label": 'x "y"\nz', "patient": "p1"}


def test_empty_rows_are_left_out_and_short_ones_filled(path):
    rows = read(path, "path,label,patient,site\na.png,x,p1\n\n,,,\n  \nb.png,y,p2,s\n")
    assert list(rows.index) == [2, 6]
    assert rows.loc[2, "site"] == ""


@pytest.mark.parametrize("nothing", ["NA", "n/a", "NaN", "NULL", "None", " "])
def test_what_programs_write_for_no_value_is_none_but_a_label_may_be_such_a_word(path, nothing):
    row = read(path, f"path,label,patient,site\na.png,{nothing},{nothing},{nothing}\n").loc[2]
    assert (row["label"], row["patient"], row["site"]) == (nothing.strip(), "", "")


def test_parquet_of_any_type_becomes_text(path):
    columns = {
        "path": ["a.png", "b.png"],
        "label": pa.array(["x", "y"]).dictionary_encode(),
        "patient": pa.array([7, None]),
        "site": pa.array([pd.Timestamp("2024-03-04"), None]),
    }
    pq.write_table(pa.table(columns), path)
    rows = table.read(path, WANTED, str)
    assert rows["patient"].tolist() == ["7", ""]
    assert rows["label"].tolist() == ["x", "y"]
    assert rows.loc[2, "site"].startswith("2024-03-04")


def workbook() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (codecs.BOM_UTF8, "first line of .* is empty"),
        ("\n" + LINES, "first line of .* is empty"),
        ("path,label,patient\n", "has no rows"),
        ("path,label,patient\n,,\n", "has no rows"),
        (LINES.encode("cp1252"), "not UTF-8: byte 0xe4 in line 2. Save it as 'CSV UTF-8'"),
        (LINES.encode("utf-16-le"), "not UTF-8|NUL bytes"),
        (codecs.BOM_UTF16_LE + b"p\0a", "not UTF-16"),
        (workbook(), "Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook"),
        (b"\x1f\x8b\x08\0", "gzip: unpack it"),
        ("sep=;\npath;label;patient\n", "'sep=;', which only Excel reads: remove that line"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
        ("path,label,patient\na,b,c\na,b,c,d\n", "line 3 has 4 values, but there are 3 columns"),
        ("path,label,patient\na,b,c,d\n", "line 2 has 4 values, but there are 3 columns"),
        ('path,label,patient\na,"b,c\n', "double quote in row 2 is never closed"),
        ("path,label,patient,label\na,b,c,d\n", "2 columns 'label'"),
        (
            "File,Labels,patient\na,b,c\n",
            r"no column 'path'.* 'File', 'Labels', 'patient': set data.columns.path='NAME'",
        ),
        ("path,Label,patient\na,b,c\n", "nearest is 'Label'.* set data.columns.label='Label'"),
        ("path|label|patient\na|b|c\n", "no column 'path'; the nearest is 'path|label|patient'"),
    ],
)
def test_what_is_no_such_table_is_named_with_a_remedy(path, content, message):
    with pytest.raises(TableError, match=message) as caught:
        read(path, content)
    assert "labels.csv" in str(caught.value)


def test_a_missing_table_is_named(path):
    with pytest.raises(TableError, match=rf"{path} cannot be read: No such file"):
        table.read(path, WANTED, str)


def test_only_an_optional_column_that_was_asked_for_must_exist(path):
    content = "path,label,patient\na,b,c\n"
    assert list(read(path, content)) == ["path", "label", "patient"]
    with pytest.raises(TableError, match="no column 'Clinic'"):
        read(path, content, Wanted(COLUMNS | {"site": "Clinic"}, WANTED.needed, "{}"))


def test_an_optional_column_in_another_case_is_pointed_at(path):
    lines: list[str] = []
    path.write_text("path,label,patient,Site\na,b,c,d\n")
    assert "site" not in table.read(path, WANTED, lines.append)
    assert "'Site' is not used: set data.columns.site='Site'" in lines[0]


def test_columns_that_nobody_needs_may_repeat(path):
    assert read(path, "path,label,patient,,note,note\na,b,c,,1,2\n").shape == (1, 3)


@settings(deadline=None, max_examples=150)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.tuples(
            st.sampled_from([b"path,label,patient\n", b"path;label;patient\r\n", b"PAR1", b""]),
            st.lists(
                st.sampled_from([b'"', b",", b";", b"\n", b"\r", b"\t", b"a", b"\xe4", b"\0"])
            ),
        ).map(lambda parts: parts[0] + b"".join(parts[1])),
        st.text(max_size=80).map(lambda text: ("path,label,patient\n" + text).encode("utf-16")),
    )
)
def test_any_bytes_are_a_table_or_an_error(tmp_path_factory, content):
    try:
        rows = read(tmp_path_factory.getbasetemp() / "any.csv", content)
    except TableError:
        return
    assert rows.map(lambda value: value == value.strip()).all(axis=None)
    assert set(rows) >= {"path", "label", "patient"}
