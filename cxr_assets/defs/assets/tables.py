"""Tables as metadata, which the Dagster UI shows: of the inventory, and of the dataset."""

import dagster as dg
import pandas as pd

from cxr_assets.radiographs.withdrawal import WITHDRAWN

# Of each reason for which rows are skipped, or images are rejected.
_EXAMPLES = 3


def counts(named: pd.DataFrame) -> pd.DataFrame:
    """Number of images of an inventory by source, site and class, and by split."""
    rows = named.assign(
        site=named["site"].fillna("unknown"), split=named["split"].fillna("to be drawn")
    )
    return (
        rows.groupby(["source", "site", "label", "split"])
        .size()
        .unstack(fill_value=0)
        .reset_index()
    )


def skipped(inventory: pd.DataFrame) -> pd.DataFrame:
    """Number of rows skipped by source and kind of reason, with the first of each.

    Nothing can be removed from Dagster's event log: it gets no names of withdrawn patients.
    """
    rows = inventory[inventory["problem"].notna()]
    # Not partition: of no rows it makes no columns.
    kind = rows["problem"].str.split(":", n=1).str[0].rename("reason")
    text = rows["path"] + ": " + rows["problem"].str.split(": ", n=1).str[-1]
    text = text.mask(rows["problem"] == WITHDRAWN, "")
    groups = text.groupby([rows["source"], kind])
    counted = [
        (*key, len(group), "; ".join(filter(None, group.head(_EXAMPLES)))) for key, group in groups
    ]
    return pd.DataFrame(counted, columns=["source", "reason", "rows", "examples"])


def rejected(images: pd.DataFrame) -> pd.DataFrame:
    """Number of images that the gate rejects by source and reasons, with the first of each."""
    groups = images.groupby(["source", "reasons"])["path"]
    counted = [(*key, len(paths), "; ".join(paths.head(_EXAMPLES))) for key, paths in groups]
    return pd.DataFrame(counted, columns=["source", "reasons", "images", "examples"])


def megabytes(inventory: pd.DataFrame) -> float:
    """Size of the files of an inventory."""
    size = float(inventory.drop_duplicates(["source", "path"])["bytes"].sum())
    return round(size / 1e6, 1)


def by_split(numbers: dict[str, dict[str, int]], splits: pd.Index) -> pd.DataFrame:
    """One row per source or site, one column per split."""
    return pd.DataFrame(numbers).T.reindex(columns=splits)


def rows(table: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """A table without its index."""
    return dg.MetadataValue.md(table.to_markdown(index=False))


def numbers(table: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """A table of counts, with its index; missing ones are 0."""
    return dg.MetadataValue.md(table.fillna(0).astype(int).to_markdown())
