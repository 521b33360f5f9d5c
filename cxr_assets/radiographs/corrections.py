"""Corrected labels: a table that somebody edited after looking at the images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr_assets.progress import Progress
from cxr_assets.radiographs import table
from cxr_assets.radiographs.labels import Words
from cxr_assets.radiographs.naming import spellings
from cxr_assets.radiographs.table import TableError, Wanted
from cxr_serving.model.places import expanded

_COLUMNS = {name: name for name in ("path", "label", "source")}


@dataclass(frozen=True)
class Corrected:
    """What a table of corrections did.

    Attributes:
        images: images whose label it changed, or that it left out or took in.
        unmatched: its rows that match no image, as ``row N: path``.
    """

    images: int = 0
    unmatched: tuple[str, ...] = ()


def apply(
    path: Path,
    rows: pd.DataFrame,
    words: Mapping[str, Words],
    roots: Mapping[str, Path],
    progress: Progress,
) -> Corrected:
    """Correct labels, in place.

    The table has the columns ``path`` and ``label``, and ``source`` where a path stands in two
    sources; it may have others. An empty label changes nothing. A label applies to the image: to
    all rows and files with the same content. Of two rows for one image the later wins.

    Args:
        path: of the table, CSV or Parquet.
        rows: of the inventory; ``label`` and ``problem`` are changed.
        words: of each source, by name.
        roots: folder that the paths of a source are relative to, by name of the source.
        progress: called with a line about what was done.

    Raises:
        TableError: the table cannot be read, a label is unknown, or a path stands in two sources.
    """
    given = table.read(path, Wanted(_COLUMNS, ("path", "label"), None), progress)
    given = given.reindex(columns=list(_COLUMNS), fill_value="")
    image = rows["sha256"].where(rows["sha256"].notna(), rows["source"] + "\0" + rows["path"])
    of_file = dict(zip(zip(rows["source"], rows["path"], strict=True), image, strict=True))
    meant: dict[str, tuple[str | None, str | None]] = {}
    unmatched = []
    for row in given[given["label"] != ""].itertuples():
        files = [file for file in _files(row.path, row.source, roots) if file in of_file]
        sources = list(dict.fromkeys(source for source, _ in files))
        if not files:
            unmatched.append(f"row {row.Index}: {row.path}")
            continue
        if len({of_file[file] for file in files}) > 1:
            raise TableError(
                f"{path}, row {row.Index}: {row.path} stands in the sources {' and '.join(sources)}"
                ": name the right one in a column 'source'"
            )
        label, problem = words[sources[0]].meaning(row.label)
        if problem is not None and problem.startswith("label:"):
            raise TableError(f"{path}, row {row.Index}: {problem}")
        meant[of_file[files[0]]] = label, problem
    corrected = Corrected(_correct(rows, image, meant), tuple(unmatched))
    progress(f"{corrected.images:,} images corrected by {path}")
    if unmatched:
        progress(f"{len(unmatched):,} rows of {path} match no image, the first is {unmatched[0]}")
    return corrected


def _files(path: str, source: str, roots: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Source and path, as in the inventory, of the files that a row may mean."""
    for name, root in roots.items():
        if source in ("", name):
            for spelled in spellings(str(expanded(path))):
                yield name, spelled.removeprefix(f"{root}/")


def _correct(
    rows: pd.DataFrame, image: pd.Series, meant: Mapping[str, tuple[str | None, str | None]]
) -> int:
    """Set the labels, and return how many images had another one."""
    now = image[image.isin(meant)]
    label = now.map({key: label for key, (label, _) in meant.items()}).astype(object)
    label = label.where(label.notna(), None)
    changed = rows.loc[now.index, "label"].fillna("") != label.fillna("")
    rows.loc[now.index, "label"] = label
    # Only the problems that a label has: a missing file stays missing.
    before = rows.loc[now.index, "problem"]
    free = before.isna() | before.str.startswith(("label:", "excluded:"), na=False)
    problem = now.map({key: problem for key, (_, problem) in meant.items()}).astype(object)
    rows.loc[now.index[free], "problem"] = problem.where(problem.notna(), None)[free]
    return int(now[changed].nunique())
