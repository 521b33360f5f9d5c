"""Images that a source, or two, list more than once: copies, and contradictions."""

from collections.abc import Sequence

import pandas as pd

# Contradicting values of an image that a message lists.
_EXAMPLES = 3


def mark(rows: pd.DataFrame) -> pd.Series:
    """The problems of rows, with those added that only show when rows are compared.

    Files of the same content are the same image. All rows of an image with different labels, in one
    source or several, are a conflict, and so are those with different patients in one source
    (patients of two sources have nothing in common) or rows of one file with different splits. A
    row that says nothing contradicts none. Of rows with the same file and label one is kept: the
    first that says patient and split.

    Args:
        rows: of the inventory, of all sources.
    """
    problem = rows["problem"].copy()
    # A word that is no class contradicts one that is: which is right, only the source can say.
    kind = problem.str.partition(":")[0].where(problem.notna(), "") if len(rows) else problem
    counted = kind.isin(["", "label", "excluded"]) & rows["sha256"].notna()
    counted &= rows["label"].notna() | (rows["given_label"].fillna("") != "")
    seen = rows.loc[
        counted, ["source", "path", "sha256", "split", "patient", "label", "given_label"]
    ]
    label = seen["label"].where(seen["label"].notna(), seen["given_label"].str.casefold())
    label = label.mask(kind[counted] == "excluded", "left out")
    # Of several contradictions the last one is reported.
    _contradictions(problem, seen["split"], seen[["source", "path"]], "split")
    _contradictions(problem, seen["patient"], seen[["source", "sha256"]], "patient")
    _contradictions(problem, label, seen[["sha256"]], "label")
    usable = rows.loc[problem.isna(), ["source", "path", "patient", "split"]]
    usable = usable[usable.duplicated(["source", "path"], keep=False)]
    # Rows that say patient and split come before those that do not.
    silent = usable[["patient", "split"]].isna().sort_values(["patient", "split"], kind="stable")
    ordered = usable.loc[silent.index, ["source", "path"]]
    again = ordered[ordered.duplicated()]
    problem[again.index] = "duplicate: another row has the same file and label"
    return problem


def _contradictions(problem: pd.Series, stated: pd.Series, images: pd.DataFrame, what: str) -> None:
    """Fill in the problem of rows that state different things of one image, of the same values."""
    keys = [images[name] for name in images]
    stated = stated[stated.groupby(keys, sort=False).transform("nunique") > 1]
    if stated.empty:
        return
    image = images.loc[stated.index].agg(" ".join, axis=1)
    every = stated.dropna().groupby(image).unique()
    others = every.map(_listed)
    remedy = "the source"
    if what == "label":
        remedy += ", or data.corrections of the pipeline,"
    problem[stated.index] = (
        f"conflict: the same image has the {what}s "
        + image.map(others)
        + f": {remedy} must say which is right"
    )


def _listed(words: Sequence[str]) -> str:
    first = ", ".join(sorted(words)[:_EXAMPLES])
    return f"{first} and others" if len(words) > _EXAMPLES else first
