import re
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from radiographs import tables

import cxr
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.overrides import split
from cxr_assets.radiographs import raw, withdrawal
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_assets.settings import load

LABELS = ["data.labels.Viral=viral_pneumonia", "data.labels.bacterial=bacterial_pneumonia"]


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("CXR_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.delenv("CXR_OVERRIDES", raising=False)
    return Layout(tmp_path / "data")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    """What ``cxr data check`` says, and its status or error."""

    def run(*arguments: object) -> tuple[str, int | str | None]:
        with pytest.raises(SystemExit) as stop:
            cxr.main(["data", "check", *map(str, arguments)])
        return capsys.readouterr().out, stop.value.code

    return run


def counts(text: str) -> dict[str, tuple[str, ...]]:
    """Images and patients by value, of all tables that were printed."""
    rows = re.findall(r"^  (\S.*?)  +([\d,]+)  +([\d,]+)$", text, re.MULTILINE)
    return {value: numbers for value, *numbers in rows}


def test_usable_images_are_counted_by_what_the_table_says(
    tmp_path: Path, layout: Layout, said
) -> None:
    table = tables.write(tmp_path, *tables.ROWS)
    text, status = said(table, *LABELS)
    assert status == 0
    assert "6 rows, 6 usable images of 6 patients" in text
    found = counts(text)
    assert found["viral_pneumonia"] == ["2", "2"]
    assert (found["train"], found["test"]) == (["3", "3"], ["3", "3"])
    assert (found["north"], found["south"]) == (["2", "2"], ["4", "4"])
    assert (found["40 x 30"], found["8"]) == (["6", "6"], ["6", "6"])
    assert (found["PA"], found["2024"]) == (["1", "1"], ["3", "3"])
    assert "cannot be used" not in text


def test_a_tilde_is_the_home_directory_in_commands_settings_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CXR_DATA_ROOT", "~/data")
    monkeypatch.setenv("CXR_OVERRIDES", "data.corrections=~/corrections.csv")
    tables.write(tmp_path / "elsewhere", *(f"~/elsewhere/{row}" for row in tables.ROWS))
    (tmp_path / "elsewhere" / "labels.csv").rename(tmp_path / "labels.csv")
    text, status = said("~/labels.csv", *LABELS, "--csv=~/bad.csv")
    assert (status, (tmp_path / "bad.csv").exists()) == (0, True)
    assert "6 rows, 6 usable images" in text
    assert str(tmp_path / "data" / "checks" / "labels.html") in text

    (tmp_path / "corrections.csv").write_text("path,label\n~/elsewhere/images/a.png,Viral\n")
    words = ", ".join(label.removeprefix("data.labels.").replace("=", ": ") for label in LABELS)
    source = f"{{name: a, source: table, table: ~/labels.csv, labels: {{{words}}}}}"
    settings = ("data=sources", f"data.sources=[{source}]", *split(load().overrides))
    data = compose("demo", settings).data
    assert data.sources[0].table == tmp_path / "labels.csv"
    images = raw.collect(data, KAGGLE_CLASSES, load().layout, lambda line: None)
    assert images.corrected.unmatched == ()


def test_rows_that_cannot_be_used_are_grouped_by_reason_and_listed_in_full(
    tmp_path: Path, layout: Layout, said
) -> None:
    wrong = [f"images/{name}.png,Virus,p9,,,,,," for name in "abcd"]
    table = tables.write(tmp_path, *tables.ROWS, *wrong[:1], "gone.png,normal,p8,,,,,,")
    text, status = said(table, *LABELS, "--csv", tmp_path / "bad.csv")
    assert status == 0
    assert re.search(r"missing: 1\n    gone\.png \(row 9\): ", text)
    assert re.search(r"conflict: 2\n", text), "two rows, one image, two labels"
    assert f"All rows that cannot be used: {tmp_path / 'bad.csv'}" in text
    listed = (tmp_path / "bad.csv").read_text().splitlines()
    assert listed[0] == "path,given_label,patient,problem"
    assert len(listed) == 1 + 3
    (tmp_path / "more").mkdir()
    text, status = said(tables.write(tmp_path / "more", *wrong), *LABELS)
    assert status == 1, "nothing can be used"
    assert "label: 4\n" in text
    assert "and 3 more for the same reason" in text
    assert "No image of the class normal" in text


def test_what_a_run_would_warn_about_is_said(tmp_path: Path, layout: Layout, said) -> None:
    rows = (*tables.ROWS, "images/a.png,viral,,,,,,,", "images/b2.png,normal,p2,test,,,,,")
    table = tables.write(tmp_path, *rows)
    (tmp_path / "images/b2.png").write_bytes((tmp_path / "images/b.png").read_bytes())
    (tmp_path / "images/g.png").write_bytes((tmp_path / "images/a.png").read_bytes() + b"\0")
    with table.open("a") as file:
        file.write("images/g.png,viral,,,,,,,\n")
    text, status = said(table, *LABELS)
    assert status == 0
    assert "Images without a patient: 1." in text
    assert "Copies of other images, byte for byte: 1." in text
    assert "Patients in more than one split: 1." in text


def test_the_page_shows_samples_of_each_class_and_needs_nothing_else(
    tmp_path: Path, layout: Layout, said
) -> None:
    text, _ = said(tables.write(tmp_path, *tables.ROWS), *LABELS)
    place = layout.checks / "labels.html"
    assert f"Page with sample images of patients: {place}" in text
    page = place.read_text()
    assert page.count("<figure data-images=") == page.count("data:image/png;base64,") == 6
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "keep it where the images are" in page
    assert "images/a.png" in page
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["labels.csv"]


def test_an_image_that_the_header_does_not_give_away_is_shown_as_broken(
    tmp_path: Path, layout: Layout, said
) -> None:
    table = tables.write(tmp_path, *tables.ROWS)
    image = tmp_path / "images/a.png"
    image.write_bytes(image.read_bytes()[:200])
    _, status = said(table, *LABELS)
    assert status == 0
    assert "cannot be decoded" in (layout.checks / "labels.html").read_text()


def test_a_wrong_column_is_named_with_the_nearest(tmp_path: Path, layout: Layout, said) -> None:
    header = tables.HEADER.replace("label", "Befund label")
    table = tables.write(tmp_path, *tables.ROWS, header=header)
    _, error = said(table)
    assert "no column 'label'; the nearest is 'Befund label'" in str(error)
    assert said(table, "data.columns.label=Befund label", *LABELS)[1] == 0


def test_settings_of_the_pipeline_that_concern_tables_count(
    tmp_path: Path, layout: Layout, said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_OVERRIDES", " ".join([*LABELS, "data=folder data.folder=/nowhere"]))
    text, status = said(tables.write(tmp_path, *tables.ROWS))
    assert status == 0
    assert "6 usable" in text
    assert "no setting named 'data.label'" in str(said(tmp_path / "labels.csv", "data.label=x")[1])
    assert "no table" in str(said(tmp_path / "absent.csv")[1])


def test_a_table_that_is_one_of_several_sources_is_read_as_that(
    tmp_path: Path, layout: Layout, said, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tables.write(tmp_path, *tables.ROWS, header=tables.HEADER.replace("label", "Befund"))
    labels = "{Viral: viral_pneumonia, bacterial: bacterial_pneumonia, other word: null}"
    monkeypatch.setenv(
        "CXR_OVERRIDES",
        'data=sources seed=1 data.sources="[{name: kaggle, source: kaggle, dataset: a/b},\n'
        f"{{name: clinic, source: table, table: '{table}', columns: {{label: Befund}}, "
        f'labels: {labels}}}]"',
    )
    assert "6 usable" in said(table)[0]
    other = tables.write(tmp_path / "other", *tables.ROWS)
    assert "2 usable" in said(other)[0]


def test_a_patient_who_withdrew_consent_is_neither_counted_nor_shown(
    tmp_path: Path, layout: Layout, said
) -> None:
    table = tables.write(tmp_path, *tables.ROWS)
    image = sha256((tmp_path / "images/d.png").read_bytes()).hexdigest()
    # Of two patients one is known by name, the other by an image, as one of another source is.
    withdrawal.record(layout, "table/p1", [], datetime(2026, 3, 1, tzinfo=UTC))
    withdrawal.record(layout, "clinic/4711", [image], datetime(2026, 3, 1, tzinfo=UTC))
    text, _ = said(table, *LABELS)
    assert "6 rows, 4 usable images of 4 patients" in text
    assert "withdrawn: 2" in text
    page = (layout.checks / "labels.html").read_text()
    assert "images/b.png" in page
    assert "images/a.png" not in page.split("cannot be used")[0]
    assert image not in page


def test_a_folder_of_partitions_is_checked_as_one_table(
    tmp_path: Path, layout: Layout, said
) -> None:
    table = tables.write(tmp_path, *tables.ROWS, "gone.png,normal,p8,,,,,,")
    header, *rows = table.read_text().splitlines()
    table.unlink()
    for month, some in (("01", rows[:4]), ("02", rows[4:])):
        part = tmp_path / "labels" / f"month=2024-{month}" / "part-0.csv"
        part.parent.mkdir(parents=True)
        part.write_text("\n".join([header, *some, ""]))
    text, status = said(tmp_path / "labels", *LABELS)
    assert status == 0
    assert "7 rows, 6 usable images of 6 patients" in text
    assert "gone.png (row 8, row 4 of month=2024-02/part-0.csv): " in text
    assert str(layout.checks / "labels.html") in text
