import os
from pathlib import Path

import pytest
from PIL import Image
from radiographs import tables
from radiographs.folders import NAMES, write_image

from cxr_assets.radiographs import survey
from cxr_assets.radiographs.inventory import RawDataError
from cxr_assets.radiographs.naming import KAGGLE_CLASSES


def test_a_table_is_surveyed_with_default_columns_and_kaggles_words(tmp_path):
    rows = ("images/a.png,virus,", "images/b.png,NORMAL,p2", "images/c.png,poor,p3")
    table = tables.write(tmp_path, *rows, header="path,label,patient")
    found = survey.read(table, KAGGLE_CLASSES, {"poor": None}, lambda line: None)
    assert found["label"].tolist() == ["viral_pneumonia", "normal", None]
    write_image(tmp_path / "flat.png", 255)
    tables.write(tmp_path, "flat.png,normal,p", header="path,label,patient")
    with pytest.raises(RawDataError, match=r"blank.*the columns path, label and patient"):
        survey.read(table, KAGGLE_CLASSES, {}, lambda line: None)


def test_only_the_test_split_of_a_folder_is_read_and_broken_images_are_listed(source):
    for number, name in enumerate(NAMES):
        Image.linear_gradient("L").resize((40 + number, 30)).save(source / name)
    (source / "test/NORMAL/IM-0020-0001.jpeg").write_bytes(b"no image")
    found = survey.read(source.parent, KAGGLE_CLASSES, {}, str).set_index("path")
    assert set(found.index) == {
        *(f"chest_xray/{name}" for name in NAMES if name.startswith("test/")),
        "chest_xray/test/NORMAL/IM-0020-0001.jpeg",
    }
    broken = found.pop("problem").dropna()
    assert list(broken.index) == ["chest_xray/test/NORMAL/IM-0020-0001.jpeg"]


def test_a_label_that_is_no_class_of_the_model_is_an_error(source):
    with pytest.raises(RawDataError, match=r"classes of the model are normal: .*--label \w+="):
        survey.read(source, ("normal",), {}, str)


def test_a_folder_whose_name_is_not_utf8_is_named(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xf6ntgen"))
    odd.mkdir()
    with pytest.raises(RawDataError, match=r"r\\udcf6ntgen is not UTF-8: rename it"):
        survey.read(odd, KAGGLE_CLASSES, {}, str)


def test_a_pipe_is_never_opened(tmp_path):
    (tmp_path / "NORMAL").mkdir()
    os.mkfifo(tmp_path / "NORMAL" / "IM-0600-0001.jpeg")
    with pytest.raises(RawDataError, match=r"no image could be read in .*: corrupt: it is a pi"):
        survey.read(tmp_path, KAGGLE_CLASSES, {}, str)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("File,label,patient", "no column 'path'.* rename the right one to 'path'"),
        ("path,Label,patient", "no column 'label'; the nearest is 'Label'.* rename the right one"),
        (None, r"there is no .*labels\.csv: expected a folder of images, or a table"),
    ],
)
def test_a_table_that_cannot_be_surveyed_is_named_with_what_can_be_done(tmp_path, header, message):
    place = tmp_path / "labels.csv"
    if header:
        place.write_text(f"{header}\na.png,normal,p1\n")
    with pytest.raises(RawDataError, match=message):
        survey.read(place, KAGGLE_CLASSES, {}, str)


def test_a_label_of_two_words_is_quoted_for_the_shell(tmp_path):
    table = tables.write(tmp_path, "images/a.png,No finding,p", header="path,label,patient")
    with pytest.raises(RawDataError, match="--label 'No finding=CLASS' which"):
        survey.read(table, KAGGLE_CLASSES, {}, lambda line: None)
