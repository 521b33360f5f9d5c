from pathlib import PurePosixPath

import pytest

from cxr_assets.radiographs.naming import (
    KAGGLE_CLASSES,
    ImageName,
    UnnamedImage,
    parse,
    person,
    series,
)


@pytest.mark.parametrize(
    ("path", "label", "patient"),
    [
        ("train/NORMAL/IM-0115-0001.jpeg", "normal", "normal/IM-0115"),
        ("train/NORMAL/IM-0533-0001-0002.jpeg", "normal", "normal/IM-0533"),
        ("train/NORMAL/NORMAL2-IM-1337-0001.jpeg", "normal", "normal/NORMAL2-IM-1337"),
        ("test/normal/IM-0001-0001.JPEG", "normal", "normal/IM-0001"),
        ("test/NORMAL/an image of somebody.png", "normal", None),
        ("test/NORMAL/child7_a.png", "normal", None),
        ("train/PNEUMONIA/_bacteria_3.png", "bacterial_pneumonia", None),
        (
            "train/PNEUMONIA/person12_bacteria_47.jpeg",
            "bacterial_pneumonia",
            "bacteria/person12",
        ),
        ("train/PNEUMONIA/person12_virus_9.jpeg", "viral_pneumonia", "virus/person12"),
        ("train/PNEUMONIA/person12_VIRUS_9.jpeg", "viral_pneumonia", "virus/person12"),
    ],
)
def test_names_of_kermanys_data_set(path, label, patient):
    assert parse(PurePosixPath(path)) == ImageName(label, patient)


def test_equal_numbers_of_different_causes_are_different_patients():
    bacterial = parse(PurePosixPath("train/PNEUMONIA/person1_bacteria_1.jpeg"))
    viral = parse(PurePosixPath("train/PNEUMONIA/person1_virus_1.jpeg"))
    assert bacterial.patient != viral.patient


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("train/PNEUMONIA/person12.jpeg", "_bacteria_"),
        ("train/PNEUMONIA/person12_bacteria.jpeg", "_bacteria_"),
        ("train/PNEUMONIA/IM-0115-0001.jpeg", "_virus_"),
        ("train/COVID/person12_virus_9.jpeg", "COVID"),
        ("IM-0115-0001.jpeg", "neither NORMAL nor PNEUMONIA"),
    ],
)
def test_nothing_is_guessed(path, reason):
    with pytest.raises(UnnamedImage, match=reason):
        parse(PurePosixPath(path))


@pytest.mark.parametrize(
    ("patient", "of_series", "number"),
    [
        ("folder/normal/IM-0115", "IM-", None),
        ("normal/NORMAL2-IM-1337", "NORMAL2-IM-", None),
        ("folder/bacteria/person12", None, 12),
        ("virus/person1600", None, 1600),
        ("bacteria/child7", None, None),
        ("table/person12", None, None),
        ("table/IM-0115", None, None),
    ],
)
def test_series_and_number_of_a_patient(patient, of_series, number):
    assert series(patient) == of_series
    assert person(patient) == number


def test_classes_are_in_alphabetical_order():
    assert list(KAGGLE_CLASSES) == sorted(KAGGLE_CLASSES)


@pytest.mark.parametrize(
    "name",
    [
        "IM-0009-0001.jpeg",
        "IM-0009-0001 (1).jpeg",
        "IM-0009-0001 2.jpeg",
        "IM-0009-0001 - Copy.jpeg",
        "IM-0009-0001 - Copy (2).jpeg",
        "IM-0009-0001 copy 2.jpeg",
        "IM-0009-0001_copy.jpeg",
        "IM-0009-0001 (another copy).jpeg",
        "Copy of IM-0009-0001.jpeg",
        "Copy (2) of IM-0009-0001 (1).jpeg",
        "Copy of Copy of IM-0009-0002.jpeg",
        "Kopie von IM-0009-0001.jpeg",
        "im-0009-0003.JPG",
        "IM-9-1.png",
    ],
)
def test_marks_of_a_copy_do_not_change_the_patient(name):
    assert parse(PurePosixPath("train/NORMAL") / name).patient == "normal/IM-0009"
    prefixed = name.replace("IM-", "NORMAL2-IM-").replace("im-", "normal2-im-")
    other = parse(PurePosixPath("train/NORMAL") / prefixed)
    assert other.patient == "normal/NORMAL2-IM-0009", "another patient than IM-0009"
    pneumonia = name.replace("IM-0009-000", "Child7_Bacteria_").replace("IM-9-", "child7_bacteria_")
    pneumonia = pneumonia.replace("im-0009-000", "CHILD7_BACTERIA_")
    assert parse(PurePosixPath("train/PNEUMONIA") / pneumonia).patient == "bacteria/child7"
    kaggle = pneumonia.lower().replace("child7", "Person07")
    assert parse(PurePosixPath("train/PNEUMONIA") / kaggle).patient == "bacteria/person7"
