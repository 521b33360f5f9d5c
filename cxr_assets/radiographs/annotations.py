"""The rows of a table source: which image, and what the columns say about it."""

import os
import re
from pathlib import Path

import pandas as pd

from cxr_assets.progress import Progress
from cxr_assets.radiographs import partitions
from cxr_assets.radiographs.inventory import RawDataError
from cxr_assets.radiographs.naming import SPLITS, pseudonym, spellings
from cxr_assets.radiographs.partitions import Partition
from cxr_assets.radiographs.table import FIRST, Wanted
from cxr_assets.sources import Source
from cxr_serving.model.places import expanded

_NEEDED = ("path", "label", "patient")
# Spellings of frontal projections, without what is no letter: Frontal, PA, P.A., postero-anterior.
_FRONTAL = {
    **dict.fromkeys(("pa", "posteroanterior", "posterioranterior"), "PA"),
    **dict.fromkeys(("ap", "anteroposterior", "anteriorposterior"), "AP"),
    "frontal": "frontal",
}
# Words that may stand beside the projection: chest, and the position of the patient.
_ASIDE = (
    *("chest", "thorax", "view", "projection", "erect", "semierect", "semi", "standing", "sitting"),
    *("upright", "supine", "horizontal", "bedside", "portable", "mobile"),
)
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}
# What two names of one patient may differ in: leading zeros, and signs that separate no numbers.
_NO_MATTER = r"(?<!\d)0+(?=\d)|(?<!\d)[\W_]+|[\W_]+(?!\d)"
_DATE = r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ]\d\d:?\d\d.*)?"
_AGE = r"(\d{1,3}(?:[.,]\d+)?)\s*([YMWD]?)"
_PER_YEAR = {"": 1, "Y": 1, "M": 12, "W": 365.25 / 7, "D": 365.25}
_OLDEST = 130


def root(source: Source) -> Path:
    """The folder that the table lies in, file or folder, which paths are relative to.

    Raises:
        RawDataError: there is no such table.
    """
    assert source.table is not None  # Source checks it
    path = source.table
    if not (path.is_file() or path.is_dir()):
        raise RawDataError(
            f"no table {path.absolute()}: {source.setting('table')} must be a file, or a folder "
            "of its parts"
        )
    return path.parent.resolve()


def read(source: Source, progress: Progress, *, renamed: bool = True) -> pd.DataFrame:
    """One row per row of the table, with what the columns say.

    Args:
        source: a table source.
        progress: called with a line about a column that may be meant, but is not read.
        renamed: whether a setting says how columns are named.

    Returns:
        The columns of the inventory but those that the file or the classes decide; ``row``, the
        row's number in a spreadsheet; and, where the table is a folder, ``file``, one of its files,
        and ``line``, the row's number in that. ``path`` is below :func:`root`, or absolute where it
        lies outside. ``problem`` is that of the first value that cannot be used.

    Raises:
        TableError: see :func:`partitions.read`.
    """
    assert source.table is not None
    setting = source.setting("columns.{}") if renamed else None
    wanted = Wanted(source.columns.model_dump(), _NEEDED, setting)
    folder = root(source)
    rows = pd.concat(
        [
            _interpreted(source, folder, partition)
            for partition in partitions.read(source.table, wanted, progress)
        ],
        ignore_index=True,
    )
    _report_alike(rows["patient"].dropna().str.removeprefix(f"{source.name}/"), progress)
    return rows


def _interpreted(source: Source, root: Path, partition: Partition) -> pd.DataFrame:
    given = partition.rows.reindex(columns=list(source.columns.model_dump()), fill_value="")
    number = given.index - FIRST + partition.first
    rows = pd.DataFrame({"source": source.name, "row": number}, index=given.index)
    if partition.name is not None:
        rows["file"], rows["line"] = partition.name, given.index
    rows["path"] = _paths(given["path"], root)
    rows["given_label"] = given["label"]
    patients = given["patient"].map({name: pseudonym(name) for name in given["patient"].unique()})
    rows["patient"] = (source.name + "/" + patients).where(patients != "", None)
    rows["site"] = _or_none(given["site"])
    rows["sex"] = _or_none(given["sex"].map(lambda sex: _SEXES.get(sex.lower(), sex)))
    first = _no_path(given["path"])
    for name, interpret in _INTERPRET.items():
        distinct = pd.Index(given[name].unique())
        value, problem = interpret(distinct.to_series())
        place = distinct.get_indexer(given[name])
        rows[name] = value.to_numpy()[place]
        first = first.where(first.notna(), problem.to_numpy()[place])
    rows["age"] = rows["age"].astype("float64")
    rows["problem"] = first
    return rows


def _report_alike(patients: pd.Series, progress: Progress) -> None:
    """What else may be one patient under two names is reported, but not decided here."""
    names = patients.drop_duplicates()
    alike = names.str.normalize("NFKC").str.casefold().str.replace(_NO_MATTER, "", regex=True)
    doubtful = names[alike.duplicated(keep=False) & (alike != "")]
    if len(doubtful):
        first = doubtful[alike[doubtful.index] == alike[doubtful.index[0]]]
        progress(
            f"{len(doubtful):,} names of patients differ only in capitals, zeros in front, blanks "
            f"or signs, such as {' and '.join(map(repr, first[:2]))}: they count as different "
            "patients. If they are one, write the name in one way"
        )


def _paths(given: pd.Series, root: Path) -> list[str]:
    """Below ``root`` or absolute, each file spelled in one way."""
    folders: dict[str, str] = {}

    def spelled(path: str) -> str:
        if "\\" in path or not path.isascii():
            path = next((one for one in spellings(path) if Path(root, one).exists()), path)
        if path.startswith("~"):
            path = str(expanded(path))
        if path.startswith("/") or ".." in path:
            folder, slash, name = path.rpartition("/")
            if folder + slash not in folders:
                folders[folder + slash] = str(Path(root, folder + slash).resolve()).rstrip("/")
            path = f"{folders[folder + slash]}/{name}"
        return os.path.normpath(path).removeprefix(f"{root}/") if path else ""

    return [spelled(path) for path in given]


def _no_path(given: pd.Series) -> pd.Series:
    return _where(given == "", "missing: the row has no path")


def _splits(given: pd.Series) -> tuple[pd.Series, pd.Series]:
    splits = given.str.lower()
    known = splits.isin([*SPLITS, ""])
    problem = "split: " + given.map(repr) + f" is none of {', '.join(SPLITS)}; empty is drawn"
    return _or_none(splits.where(known, "")), problem.where(~known, None)


def _views(given: pd.Series) -> tuple[pd.Series, pd.Series]:
    views = given.map(_frontal)
    problem = "view: " + given.map(repr) + " is not frontal, as PA and AP are"
    return _or_none(views.where(views.notna(), given)), problem.where(
        views.isna() & (given != ""), None
    )


def _frontal(view: str) -> str | None:
    words = re.findall(r"[^\W\d_]+", view.lower())
    return _FRONTAL.get("".join(word for word in words if word not in _ASIDE))


def _dates(given: pd.Series) -> tuple[pd.Series, pd.Series]:
    parts = given.str.extract(f"^{_DATE}$")
    dates = parts[0].str.cat([parts[1], parts[2]], sep="-")
    dates = dates.where(pd.to_datetime(dates, format="%Y-%m-%d", errors="coerce").notna())
    wrong = (given != "") & dates.isna()
    serial = given.str.fullmatch(r"\d{5}(\.\d+)?")
    hint = serial.map(
        {
            True: " looks like a date of Excel: format the column as YYYY-MM-DD and export again",
            False: " is no date such as 2024-03-04 or 20240304: write year, month and day so",
        }
    )
    return _or_none(dates.fillna("")), ("date: " + given.map(repr) + hint).where(wrong, None)


def _ages(given: pd.Series) -> tuple[pd.Series, pd.Series]:
    parts = given.str.upper().str.extract(f"^{_AGE}$")
    numbers = parts[0].str.replace(",", ".").astype("float64")
    ages = numbers / parts[1].map(_PER_YEAR).astype("float64")
    ages = ages.where(ages <= _OLDEST)
    problem = "age: " + given.map(repr) + " is no age in years, such as 34 or DICOM's 034Y"
    return ages, problem.where((given != "") & ages.isna(), None)


_INTERPRET = {"split": _splits, "view": _views, "acquired": _dates, "age": _ages}


def _or_none(text: pd.Series) -> pd.Series:
    return text.astype(object).where(text != "", None)


def _where(mask: pd.Series, problem: str) -> pd.Series:
    return pd.Series(problem, index=mask.index, dtype=object).where(mask, None)
