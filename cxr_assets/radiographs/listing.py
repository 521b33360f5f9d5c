"""From sources to rows of the inventory: what is listed, read, labelled and compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cxr_assets.progress import Progress
from cxr_assets.radiographs import annotations, conflicts, folder
from cxr_assets.radiographs.inventory import COLUMNS, RawDataError, examine
from cxr_assets.radiographs.labels import Words
from cxr_assets.radiographs.naming import EXTERNAL
from cxr_assets.radiographs.withdrawal import WITHDRAWN, Withdrawal
from cxr_assets.sources import Source

# How a problem ends: with the number of its row, and where a table has several files, that in one.
_IN_FILE = r", row \d+ of (?:(?! \(row ).)*"
PLACE = rf" \(row (?P<row>\d+(?:{_IN_FILE})?)\)$"


def listed(
    source: Source,
    root: Path,
    words: Words,
    known: pd.DataFrame | None,
    progress: Progress,
) -> pd.DataFrame:
    """The rows of one source, each file examined and each label a class or a problem.

    Args:
        source: which one.
        root: folder that its paths are relative to.
        words: what its labels mean.
        known: of its files, see :func:`examine`.
        progress: called with a line per stage.

    Returns:
        The columns of the inventory, and where a row of a table stands, see
        :func:`annotations.read`.

    Raises:
        RawDataError: a table cannot be read.
    """
    if source.source == "table":
        rows = annotations.read(source, progress)
        progress(f"checking {len(rows):,} rows of {source.table}")
    else:
        rows = folder.read(source.name, root, folder.splits(root), progress)
    return labelled(examine(rows, root, known), words)


def labelled(rows: pd.DataFrame, words: Words) -> pd.DataFrame:
    """Rows of a source with ``label``, and a problem where the given one is no class."""
    label, problem = words.classify(rows["given_label"].fillna(""))
    rows["label"] = label
    earlier = rows["problem"].notna() | rows["given_label"].isna()
    rows["problem"] = rows["problem"].where(earlier, problem)
    return rows


def withdraw(rows: pd.DataFrame, withdrawals: Mapping[str, Withdrawal]) -> None:
    """Mark all images of patients in a new column of problems; also where another row has them."""
    theirs = rows["patient"].isin(withdrawals)
    images = set(rows.loc[theirs, "sha256"].dropna())
    images.update(*(withdrawal.images for withdrawal in withdrawals.values()))
    rows["problem"] = rows["problem"].mask(theirs | rows["sha256"].isin(images), WITHDRAWN)


def finished(rows: pd.DataFrame) -> pd.DataFrame:
    """The inventory: rows compared with one another; the problem of a table's row says which."""
    rows["problem"] = conflicts.mark(rows)
    rows["label"] = rows["label"].where(rows["problem"].isna(), None)
    # A number helps to find a row that has to be corrected.
    mendable = rows["problem"].notna() & (rows["problem"] != WITHDRAWN)
    numbered = rows["row"].notna() & mendable
    rows.loc[numbered, "problem"] += " (row " + _places(rows[numbered]) + ")"
    texts = rows.select_dtypes(object).columns
    columns = {
        name: rows[name].where(rows[name].notna(), None) if name in texts else rows[name]
        for name in COLUMNS
    }
    return pd.DataFrame(columns, copy=False)


def of_one_file(problems: pd.Series) -> pd.Series:
    """Problems as of a table in one file: how its rows are divided into files is no content."""
    return problems.str.replace(rf"(?s)( \(row \d+){_IN_FILE}\)$", r"\1)", regex=True)


def _places(rows: pd.DataFrame) -> pd.Series:
    numbers = rows["row"].astype("int64").astype(str)
    if "file" not in rows:
        return numbers
    lines = rows["line"].fillna(0).astype("int64").astype(str)
    return numbers.where(rows["file"].isna(), numbers + ", row " + lines + " of " + rows["file"])


def require(
    inventory: pd.DataFrame,
    sources: Sequence[Source],
    roots: Mapping[str, Path],
    classes: Sequence[str],
) -> None:
    """Check that there are images of every class to train on, and to test on.

    A class may be absent from one source. A split that is still to be drawn counts as both.

    Raises:
        RawDataError: there are none; the message names class and places.
    """
    use = inventory["source"].map({source.name: source.use for source in sources})
    split_of = inventory["split"].mask(use == "train", "train")
    drawn = split_of.isna()
    for split, splits, uses in (
        ("train", ("train", "val"), ("all", "train")),
        ("test", ("test",), ("all",)),
    ):
        needed = [source for source in sources if source.use in uses]
        if not needed:
            raise RawDataError(
                "every source in data.sources is for train or test alone: test images are drawn "
                "from one with use=all"
            )
        fitting = (use != "test") & (drawn | split_of.isin(splits))
        for label in classes:
            of_class = inventory["label"] == label
            if not (of_class & fitting).any():
                given = split_of.mask(use == "test", EXTERNAL)[of_class]
                raise RawDataError(_absent(label, split, inventory[fitting], given, needed, roots))


def _absent(
    label: str,
    split: str,
    rows: pd.DataFrame,
    given: pd.Series,
    sources: Sequence[Source],
    roots: Mapping[str, Path],
) -> str:
    tables = [str(source.table) for source in sources if source.source == "table"]
    folders = [str(roots[s.name] / split) for s in sources if s.source != "table"]
    skipped = rows[rows["problem"].notna()]
    aside = (
        f" ({len(skipped):,} {'rows' if tables else 'files'} are skipped, the first is "
        f"{skipped['path'].iloc[0]}: {skipped['problem'].iloc[0]})"
        if len(skipped)
        else ""
    )
    if len(given) and not folders:
        return (
            f"no {label} image to {split} on in {', '.join(tables)}{aside}: all "
            f"{len(given):,} of them are in {' and '.join(sorted(given.unique()))}. Give {split} "
            "some of their patients, or leave their split empty to have it drawn"
        )
    expected = []
    if folders and label in folder.EXAMPLES:
        expected.append(f"names like {folder.EXAMPLES[label]}")
    if tables or not expected:
        expected.append(f"the label {label}, or a word for it in data.labels")
    return (
        f"no {label} image to {split} on could be read in {', '.join(folders + tables)}{aside}: "
        f"expected {', or '.join(expected)}; {folder.HELP}"
    )
