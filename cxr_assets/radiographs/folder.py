"""A source in Kaggle's layout: a folder with train/ and test/, each with NORMAL/ and PNEUMONIA/."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from cxr_assets.progress import Progress
from cxr_assets.radiographs import naming
from cxr_assets.radiographs.inventory import RawDataError
from cxr_assets.sources import Source
from cxr_serving.images import files
from cxr_serving.images.files import Found

EXAMPLES = {
    "bacterial_pneumonia": "PNEUMONIA/person12_bacteria_47.jpeg",
    "normal": "NORMAL/IM-0115-0001.jpeg",
    "viral_pneumonia": "PNEUMONIA/person12_virus_9.jpeg",
}
HELP = "see docs/data.md, 'A folder in Kaggle's layout'"
_FOLDERS = ("NORMAL", "PNEUMONIA")
# The splits that a source must have, by what it is used for.
_NEEDED = {"all": ("train", "test"), "train": ("train",), "test": ("test",)}
_COLUMNS = (
    *("source", "path", "split", "given_label", "patient", "site", "acquired", "view", "sex"),
    *("age", "problem", "row"),
)


def candidates(folder: Path) -> tuple[Path, Path, Path]:
    """Where the splits may lie: the folder, or chest_xray/ up to two levels below.

    Raises:
        RawDataError: it is no folder, or its name is not UTF-8.
    """
    if not folder.is_dir():
        raise RawDataError(f"{folder.absolute()} is not a directory; {HELP}")
    return folder, folder / "chest_xray", folder / "chest_xray" / "chest_xray"


def root(folder: Path, source: Source) -> Path:
    """The directory with the splits that the source is used for, resolved.

    Raises:
        RawDataError: there is none, or it lacks a folder of a class.
    """
    needed = _NEEDED[source.use]
    for top in candidates(folder):
        if any((top / split).is_dir() for split in needed):
            break
    else:
        raise RawDataError(
            f"no {'/ and '.join(needed)}/ in {folder.absolute()} or chest_xray/ in it; {HELP}"
        )
    for split in needed:
        if not any((top / split / name).is_dir() for name in _FOLDERS):
            raise RawDataError(
                f"no {split}/{_FOLDERS[0]}/ and no {split}/{_FOLDERS[1]}/ in {top.absolute()}: "
                f"{' and '.join(f'{name}/' for name in needed)} need one of them at least; {HELP}"
            )
    return require_utf8(top.resolve())


def splits(root: Path) -> list[Path]:
    """The folders of the splits; some may not exist."""
    return [root / split for split in naming.SPLITS]


def require_utf8(folder: Path) -> Path:
    """``folder``, if its name can stand in a table.

    Raises:
        RawDataError: it cannot.
    """
    if not files.is_utf8(str(folder)):
        raise RawDataError(
            f"the name of the folder {files.spelled(folder)} is not UTF-8: rename it"
        )
    return folder


def read(source: str, root: Path, tops: Sequence[Path], progress: Progress) -> pd.DataFrame:
    """One row per file below ``tops``, with what its name says.

    Args:
        source: name of the source.
        root: folder that paths are relative to.
        tops: folders below ``root``, or itself.
        progress: called with the number of files.

    Returns:
        The columns of the inventory but those that the file or the classes decide: ``split`` is the
        first part of the path, ``patient`` None if the name says none, and ``problem`` starts with
        ``corrupt:`` or ``unnamed:``; what a name does not say is None. ``row`` is NaN.
    """
    found = files.walk(top for top in tops if top.is_dir())
    progress(f"checking {len(found):,} files in {root}")
    rows = pd.DataFrame(_rows(source, root, found), columns=list(_COLUMNS), dtype=object)
    return rows.where(rows.notna(), None).astype({"age": "float64", "row": "float64"})


def _rows(source: str, root: Path, found: Iterable[Found]) -> Iterable[dict[str, Any]]:
    for file in found:
        path = PurePosixPath(file.path.relative_to(root).as_posix())
        row = {"source": source, "path": str(path), "split": path.parts[0]}
        if not files.is_utf8(str(path)):  # neither tables nor logs can hold it
            row["path"] = files.spelled(Path(path))
            yield row | {"problem": "unnamed: the file name is not UTF-8, rename the file"}
            continue
        if file.problem is not None:
            yield row | {"problem": f"corrupt: {file.problem}"}
            continue
        try:
            name = naming.parse(path)
        except naming.UnnamedImage as error:
            yield row | {"problem": f"unnamed: {error}"}
            continue
        patient = None if name.patient is None else f"{source}/{name.patient}"
        yield row | {"given_label": name.label, "patient": patient}
