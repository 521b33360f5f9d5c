"""A hospital whose archive exports DICOM and PNG with a table that grows, and has errors."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import archive
from cxr_assets.evaluation.audit import AUDIT_FILE
from cxr_assets.layout import Layout
from cxr_assets.radiographs import synthesis
from cxr_serving.model import store

# One label of so many is wrong.
_WRONG = 30


class Hospital:
    """Synthetic images as an archive exports them.

    Args:
        root: a new folder for the images and the table.
        patients: of each class.
    """

    def __init__(self, root: Path, patients: int) -> None:
        self.folder = root / "synthetic"
        synthesis.make(self.folder, patients, seed=0)
        self._truth = archive.export(self.folder, root / "archive")
        self._table = mislabel(self._truth)
        self._file = root / "archive" / "labels.csv"
        self._corrections = root / "archive" / "corrections.csv"
        # An empty label changes nothing.
        self._corrections.write_text(f"path,label\n{self._table['file'].iloc[0]},\n")

    @property
    def overrides(self) -> list[str]:
        """Settings that describe the table."""
        return [
            "data=table",
            f"data.table='{self._file}'",
            f"data.corrections='{self._corrections}'",
            *(f"data.columns.{name}={column}" for name, column in archive.COLUMNS.items()),
            *(f"data.labels.{word}={label}" for word, label in archive.WORDS.items()),
        ]

    @property
    def patient(self) -> str:
        """The first patient."""
        return str(self._table["pseudonym"].iloc[0])

    def export(self, week: int, share: float = 1) -> None:
        """Export the table as it is in a week, from 1 to 3, or the first part of it."""
        day = archive.SUNDAY + timedelta(weeks=week - 1)
        table = self._table[self._table["date"] < day.isoformat()]
        # As Excel writes it where the comma is the decimal mark.
        table.head(int(share * len(table))).to_csv(
            self._file, index=False, sep=";", encoding="utf-8-sig"
        )

    def correct(self, layout: Layout) -> str:
        """Correct the labels that the audit of the last report finds in doubt, where wrong."""
        report = layout.reports / str(store.read_pointer(layout.reports))
        listed = pd.read_csv(report / AUDIT_FILE).set_index("path")
        right = self._truth.set_index("file")["finding"].map(archive.WORDS)
        listed["label"] = right.reindex(listed.index)
        found = listed[listed["label"] != listed["given"]]
        found.to_csv(self._corrections)
        wrong = int((self._table["finding"] != self._truth["finding"]).sum())
        return f"{len(found)} of {wrong} wrong labels, which the audit lists, are corrected"


def mislabel(truth: pd.DataFrame) -> pd.DataFrame:
    """The same table with another finding in one row of thirty."""
    table = truth.copy()
    words = list(archive.WORDS)
    rng = np.random.default_rng(0)
    for row in rng.choice(len(table), len(table) // _WRONG, replace=False):
        others = [word for word in words if word != table.at[row, "finding"]]
        table.at[row, "finding"] = rng.choice(others)
    return table
