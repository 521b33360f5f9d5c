from pathlib import PurePosixPath

import pytest

from cxr_assets.radiographs.naming import CLASSES, FilmName, UnnamedFilm, parse


@pytest.mark.parametrize(
    ("path", "label", "patient"),
    [
        ("train/NORMAL/IM-0115-0001.jpeg", "normal", "normal/IM-0115"),
        ("train/NORMAL/IM-0533-0001-0002.jpeg", "normal", "normal/IM-0533"),
        ("train/NORMAL/NORMAL2-IM-1337-0001.jpeg", "normal", "normal/NORMAL2-IM-1337"),
        ("test/normal/IM-0001-0001.JPEG", "normal", "normal/IM-0001"),
        ("test/NORMAL/film of a child.png", "normal", "normal/film of a child"),
        (
            "train/PNEUMONIA/person12_bacteria_47.jpeg",
            "bacterial_pneumonia",
            "bacteria/person12",
        ),
        ("train/PNEUMONIA/person12_virus_9.jpeg", "viral_pneumonia", "virus/person12"),
        ("train/PNEUMONIA/person12_VIRUS_9.jpeg", "viral_pneumonia", "virus/person12"),
    ],
)
def test_names_of_the_kermany_set(path, label, patient):
    assert parse(PurePosixPath(path)) == FilmName(label, patient)


def test_equal_numbers_of_different_causes_are_different_children():
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
    with pytest.raises(UnnamedFilm, match=reason):
        parse(PurePosixPath(path))


def test_classes_are_in_alphabetical_order():
    assert list(CLASSES) == sorted(CLASSES)
