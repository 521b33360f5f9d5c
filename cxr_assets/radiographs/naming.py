"""Class and patient of an image, from its folder and file name."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

# What Kaggle's names tell apart, and what synthetic images show.
KAGGLE_CLASSES = ("bacterial_pneumonia", "normal", "viral_pneumonia")
SPLITS = ("train", "val", "test")
# The split of images from a source for test alone, which are reported apart.
EXTERNAL = "external"
# Prefix of source and path of an image whose patient is unknown: together they identify a patient.
UNKNOWN = "unknown/"

_CAUSE = re.compile(r"(?P<patient>.*?)_(?P<cause>bacteria|virus)_\d")
# Whatever else precedes or follows the number is ignored: IM-0533-0001-0002, "IM-0533-0001 (1)" and
# "Copy of IM-0533-0001" show one patient. With a letter or digit right before, it is another word.
_NORMAL = re.compile(r"(?<![^\W_])(?P<series>normal\d*-)?im-(?P<number>\d+)")
_PERSON = re.compile(r"(?<![^\W_])person(?P<number>\d+)$")
# How file managers and Google Drive start the name of a copy, in the languages of _COPIES.
_COPIES = "copy|kopie|kopia|kopi|copie|copia|cópia|копия|コピー|副本"
_COPY_OF = re.compile(
    rf"^(?:(?:{_COPIES})(?![^\W\d_])[\W_]*(?:\d+\)[\W_]*)?"
    r"(?:(?:of|von|van|de|di|af|av)(?![^\W\d_]))?[\W_]*)+"
)
# What `parse` calls a patient, behind the name of the source. A table names no patient so.
_OF_SERIES = re.compile(r"(?:^|/)normal/(?P<series>(?:NORMAL\d*-)?IM-)\d+$")
_OF_PERSON = re.compile(r"(?:^|/)(?:bacteria|virus)/person(?P<number>\d+)$")
# What Kaggle's names call the cause.
CLASS_OF_CAUSE = {"bacteria": "bacterial_pneumonia", "virus": "viral_pneumonia"}


class UnnamedImage(ValueError):
    """Folder and file name do not give the class; the message says what was expected."""


def pseudonym(name: str) -> str:
    """One spelling of what programs write differently: letters with accents, and 12 as 12.0.

    pandas and spreadsheets write so once one cell of a column of numbers is empty.
    """
    return re.sub(r"^(\d+)\.0$", r"\1", unicodedata.normalize("NFC", name.strip()))


def spellings(path: str) -> Iterator[str]:
    """What a path in a table may be called on disk.

    Windows separates folders by backslashes; macOS and its archives write an accent as a letter of
    its own, other systems do not.
    """
    for slashes in dict.fromkeys((path, path.replace("\\", "/"))):
        yield slashes
        if not slashes.isascii():
            forms: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
            yield from (unicodedata.normalize(form, slashes) for form in forms)


@dataclass(frozen=True)
class ImageName:
    """Class and patient of an image.

    Attributes:
        label: one of ``KAGGLE_CLASSES``.
        patient: identifies the patient; None if the name gives none. Numbers repeat between
            bacterial and viral images and mean different patients, so the cause is part of it.
    """

    label: str
    patient: str | None


def parse(path: PurePath) -> ImageName:
    """Read class and patient from ``<split>/{NORMAL,PNEUMONIA}/<file>`` (Kermany's naming).

    Names that differ only in case, leading zeros or marks of a copy mean the same patient.

    Raises:
        UnnamedImage: the path does not give the class; nothing is guessed.
    """
    folder = path.parent.name.upper()
    name = unicodedata.normalize("NFKC", path.name).casefold()
    if folder == "NORMAL":
        return ImageName("normal", _normal_patient(name))
    if folder == "PNEUMONIA":
        match = _CAUSE.match(name)
        if match is None:
            raise UnnamedImage("the file name has neither _bacteria_ nor _virus_ in it")
        cause = match["cause"]
        patient = _pneumonia_patient(match["patient"])
        return ImageName(CLASS_OF_CAUSE[cause], f"{cause}/{patient}" if patient else None)
    raise UnnamedImage(f"the folder {path.parent.name} is neither NORMAL nor PNEUMONIA")


def series(patient: str) -> str | None:
    """The series of normal images that a patient is of, such as ``NORMAL2-IM-``, if any.

    Args:
        patient: as :func:`parse` calls it, with or without the name of the source before it.
    """
    match = _OF_SERIES.search(patient)
    return match["series"] if match else None


def person(patient: str) -> int | None:
    """The number that Kaggle's names give a patient with pneumonia; as :func:`series`."""
    match = _OF_PERSON.search(patient)
    return int(match["number"]) if match else None


def _normal_patient(name: str) -> str | None:
    match = _NORMAL.search(name)
    if match is None:
        return None
    return f"normal/{(match['series'] or '').upper()}IM-{int(match['number']):04}"


def _pneumonia_patient(text: str) -> str:
    match = _PERSON.search(text)
    return f"person{int(match['number'])}" if match else _COPY_OF.sub("", text).strip()
