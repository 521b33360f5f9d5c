"""What folder and file name say about a film: split, class and patient."""

import re
from dataclasses import dataclass
from pathlib import PurePath

CLASSES = ("bacterial_pneumonia", "normal", "viral_pneumonia")
SPLITS = ("train", "val", "test")

_PNEUMONIA = re.compile(r"^(?P<patient>.+?)_(?P<cause>bacteria|virus)_\d+", re.IGNORECASE)
# IM-0533-0001 and IM-0533-0001-0002 are films of one child, IM-0533: the number after IM decides.
_NORMAL = re.compile(r"^(?P<patient>(?:NORMAL\d*-)?IM-\d+)(?:-\d+)+$", re.IGNORECASE)
_CLASS_OF_CAUSE = {"bacteria": "bacterial_pneumonia", "virus": "viral_pneumonia"}


class UnnamedFilm(ValueError):
    """Folder and file name do not say what the film shows; the message says what was expected."""


@dataclass(frozen=True)
class FilmName:
    """What the path of a film says.

    Attributes:
        label: one of ``CLASSES``.
        patient: identifies the child. Numbers repeat between bacterial and viral films and are
            different children there, so the cause is part of it.
    """

    label: str
    patient: str


def parse(path: PurePath) -> FilmName:
    """Read class and patient from ``<split>/{NORMAL,PNEUMONIA}/<file>`` (Kermany's naming).

    Raises:
        UnnamedFilm: the path says neither; nothing is guessed.
    """
    folder = path.parent.name.upper()
    if folder == "NORMAL":
        match = _NORMAL.match(path.stem)
        return FilmName("normal", f"normal/{match['patient'] if match else path.stem}")
    if folder == "PNEUMONIA":
        match = _PNEUMONIA.match(path.name)
        if match is None:
            raise UnnamedFilm("the file name has neither _bacteria_ nor _virus_ in it")
        cause = match["cause"].lower()
        return FilmName(_CLASS_OF_CAUSE[cause], f"{cause}/{match['patient']}")
    raise UnnamedFilm(f"the folder {path.parent.name} is neither NORMAL nor PNEUMONIA")
