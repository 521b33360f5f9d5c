"""The labelled images that models are evaluated on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_assets.progress import Progress
from cxr_assets.radiographs import dataset, naming, raw
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_serving.model.report import ReportError


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        root: directory that paths are relative to.
        table: one row per image: ``path`` below the root, ``class``, ``patient``, ``sha256``, and
            ``width`` and ``height`` of the source image, in pixels.
        source: what they are, in words.
        data_version: of the dataset they belong to; None for a folder.
        synthetic: whether they are synthetic images.
        skipped: files that are left out, with the reason.
        unknown_patients: images whose patient is unknown, each counted as a patient of its own.
    """

    root: Path
    table: pd.DataFrame
    source: str
    data_version: str | None
    synthetic: bool
    skipped: dict[str, str]
    unknown_patients: int

    @property
    def paths(self) -> list[Path]:
        """Paths of the N files."""
        return [self.root / path for path in self.table["path"]]

    def targets(self, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
        """Class indices [N].

        Args:
            classes: names in index order.

        Raises:
            ReportError: an image is of another class.
        """
        shown = sorted(set(self.table["class"]))
        if unknown := [label for label in shown if label not in classes]:
            raise ReportError(
                f"the {self.source} are of the classes {', '.join(shown)}, but those of the model "
                f"are {', '.join(classes)}: evaluate a model that knows {', '.join(unknown)}, too"
            )
        return np.array([classes.index(label) for label in self.table["class"]], dtype=np.int64)


def test_split(processed: Path) -> Images:
    """The test split of the processed dataset, ordered by file name.

    Raises:
        DatasetError: there is no processed dataset.
        ReportError: manifest and record disagree.
    """
    data = DatasetRecord.read(processed)
    rows = dataset.kept(processed, "test")
    expected = sum(data.counts["test"].values())
    if len(rows) == 0 or len(rows) != expected:
        raise ReportError(
            f"{processed / dataset.MANIFEST_FILE} lists {len(rows)} test images, "
            f"{dataset.DATASET_FILE} counts {expected}: materialise processed_dataset again"
        )
    table = rows[["file", "class", "patient", "sha256", "width", "height"]]
    return Images(
        root=processed,
        table=table.rename(columns={"file": "path"}),
        source="synthetic images, the test split"
        if data.synthetic
        else "radiographs, the test split",
        data_version=data.data_version,
        synthetic=data.synthetic,
        skipped={},
        unknown_patients=int(rows["patient"].str.startswith(naming.UNKNOWN).sum()),
    )


def surveyed(place: Path, classes: Sequence[str], progress: Progress = lambda line: None) -> Images:
    """Images of any folder in the raw layout, or of a table.

    Of a folder, its ``test/`` where there is one, else all of it. A file that is broken, or that is
    given no class, is skipped with a reason.

    Raises:
        RawDataError: there is no image to evaluate.
    """
    inventory = raw.survey(place, classes, progress)
    named = inventory[inventory["problem"].isna()].rename(columns={"label": "class"})
    skipped = inventory[inventory["problem"].notna()]
    unknown = named["patient"].isna()
    named["patient"] = named["patient"].where(~unknown, naming.UNKNOWN + named["path"])
    columns = ["path", "class", "patient", "sha256", "width", "height"]
    return Images(
        root=place if place.is_dir() else place.parent,
        table=named[columns].sort_values("path", ignore_index=True),
        source=f"images of the {'folder' if place.is_dir() else 'table'} {place.resolve().name}",
        data_version=None,
        synthetic=False,
        skipped=dict(zip(skipped["path"], skipped["problem"], strict=True)),
        unknown_patients=int(unknown.sum()),
    )
