"""Images that a source, or two, list more than once: copies, and contradictions."""

import pandas as pd


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
    told = kind.isin(["", "label", "excluded"]) & rows["sha256"].notna()
    told &= rows["label"].notna() | (rows["given_label"].fillna("") != "")
    seen = rows[told]
    label = seen["label"].where(seen["label"].notna(), seen["given_label"].str.casefold())
    _contradictions(problem, seen, label, seen["sha256"], "label")
    _contradictions(
        problem, seen, seen["patient"], seen["source"] + " " + seen["sha256"], "patient"
    )
    _contradictions(problem, seen, seen["split"], seen["source"] + " " + seen["path"], "split")
    usable = rows[problem.isna()]
    # Rows that say patient and split come before those that do not.
    silent = usable[["patient", "split"]].isna().sort_values(["patient", "split"], kind="stable")
    ordered = usable.loc[silent.index, ["source", "path"]]
    again = ordered[ordered.duplicated()]
    problem[again.index] = "duplicate: another row has the same file and label"
    return problem


def _contradictions(
    problem: pd.Series, rows: pd.DataFrame, said: pd.Series, image: pd.Series, what: str
) -> None:
    torn = image.map(said.groupby(image).nunique()) > 1
    if not torn.any():
        return
    every = said[torn].dropna().groupby(image[torn]).unique()
    others = every.map(lambda words: ", ".join(sorted(words)))
    remedy = "data.corrections or the source" if what == "label" else "the source"
    problem[rows.index[torn]] = (
        f"conflict: the same image has the {what}s " + image[torn].map(others) + f": {remedy} must "
        "say which is right"
    )
