"""Images of the same pixels in different files, such as a DICOM file and a PNG exported from it."""

from collections.abc import Sequence

import pandas as pd

from cxr_assets.radiographs.naming import EXTERNAL
from cxr_assets.sources import Source


def leave_out(images: pd.DataFrame, sources: Sequence[Source]) -> None:
    """Fill ``reason`` of kept images that repeat the pixels of another one.

    Those of different classes contradict each other, and all of them are left out. Of others the
    first one in test is kept, else in external, else in val, else in train. Kaggle's test split is
    unchanged, as for files that are the same byte for byte.

    Args:
        images: columns ``source``, ``path``, ``split``, ``class``, ``kept``, ``pixels`` and
            ``reason``, which is filled.
        sources: all sources.
    """
    kept = images.loc[images["kept"], ["source", "path", "split", "class", "pixels"]]
    alike = kept[kept.duplicated("pixels", keep=False)]
    rank = alike["split"].map({"test": 0, EXTERNAL: 1, "val": 2, "train": 3})
    ordered = alike.assign(rank=rank).sort_values(["rank", "source", "path"])
    same = ordered.groupby("pixels", sort=False)
    first, last = same["path"].transform("first"), same["path"].transform("last")
    other = last.where(ordered["path"] == first, first)
    conflicting = same["class"].transform("nunique") > 1
    tables = [source.name for source in sources if source.source == "table"]
    unchanged = (ordered["rank"] < 2) & ~ordered["source"].isin(tables)
    repeated = ordered.duplicated("pixels") & ~unchanged
    images.loc[ordered.index[repeated], "reason"] = "duplicate: the same pixels as " + other
    images.loc[ordered.index[conflicting], "reason"] = (
        "conflict: the same pixels as " + other + ", which is of another class"
    )
