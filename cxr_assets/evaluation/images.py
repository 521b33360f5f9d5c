"""The labelled images that models are evaluated on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_assets.progress import Progress
from cxr_assets.radiographs import dataset, naming, survey
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_serving.model.report import ReportError

_COLUMNS = [
    *("path", "class", "patient", "sha256", "width", "height"),
    *("source", "site", "acquired", "view", "sex", "age"),
]


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        root: directory that paths are relative to.
        table: one row per image: ``path`` below the root, ``class``, ``patient``, ``sha256``,
            ``width`` and ``height`` of the source image, in pixels, its ``colour`` if the path is
            that of a grey copy, else NaN, ``source``, and what is known
            of it, else None: ``site``, ``acquired`` (YYYY-MM-DD), ``view``, ``sex``, and ``age`` in
            years, else NaN.
        described: what they are, in words.
        data_version: of the dataset they belong to; None for a folder or a table.
        synthetic: whether they are synthetic images.
        skipped: files that are left out, with the reason.
    """

    root: Path
    table: pd.DataFrame
    described: str
    data_version: str | None
    synthetic: bool
    skipped: dict[str, str]

    @property
    def paths(self) -> list[Path]:
        """Paths of the N files."""
        return [self.root / path for path in self.table["path"]]

    @property
    def patients(self) -> int:
        """Number of patients."""
        return int(self.table["patient"].nunique())

    @property
    def unknown_patients(self) -> int:
        """Images whose patient is unknown, each counted as a patient of its own."""
        return int(self.table["patient"].str.startswith(naming.UNKNOWN).sum())

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
                f"the {self.described} are of the classes {', '.join(shown)}, but those of the "
                f"model are {', '.join(classes)}: evaluate a model that knows "
                f"{', '.join(unknown)}, too"
            )
        return np.array([classes.index(label) for label in self.table["class"]], dtype=np.int64)


def test_split(processed: Path) -> Images:
    """The test split of the processed dataset, in the order of :func:`dataset.kept`.

    Raises:
        DatasetError: there is no processed dataset.
        ReportError: manifest and record disagree.
    """
    return _split(processed, "test", "the test split")


def validation_split(processed: Path) -> Images:
    """The validation split of the processed dataset; as :func:`test_split`."""
    return _split(processed, "val", "the validation split")


def _split(processed: Path, split: str, what: str) -> Images:
    data = DatasetRecord.read(processed)
    rows = dataset.kept(processed, split)
    expected = sum(data.counts[split].values())
    if len(rows) == 0 or len(rows) != expected:
        raise ReportError(
            f"{processed / dataset.MANIFEST_FILE} lists {len(rows)} {split} images, "
            f"{dataset.DATASET_FILE} counts {expected}: materialise processed_dataset again"
        )
    return _prepared(processed, data, rows, what)


def external(processed: Path) -> dict[str, Images]:
    """Images of each source that is only for evaluation, by its name; ordered as the test split.

    Raises:
        DatasetError: there is no processed dataset.
    """
    data = DatasetRecord.read(processed)
    rows = dataset.kept(processed, naming.EXTERNAL)
    return {
        str(source): _prepared(
            processed, data, images.reset_index(drop=True), f"the external source {source}"
        )
        for source, images in rows.groupby("source")
    }


def _prepared(processed: Path, data: DatasetRecord, rows: pd.DataFrame, what: str) -> Images:
    return Images(
        root=processed,
        table=rows.drop(columns="path").rename(columns={"file": "path"})[[*_COLUMNS, "colour"]],
        described=f"{'synthetic images' if data.synthetic else 'radiographs'}, {what}",
        data_version=data.data_version,
        synthetic=data.synthetic,
        skipped={},
    )


def labelled(
    place: Path,
    classes: Sequence[str],
    labels: Mapping[str, str | None],
    progress: Progress = lambda line: None,
) -> Images:
    """Images of any folder in the raw layout, or of a table.

    Of a folder, its ``test/`` where there is one, else all of it. A file that is broken, or whose
    class is left out, is skipped with a reason.

    Args:
        place: the folder, or a CSV or Parquet file.
        classes: that images may be of.
        labels: class by label, None for one that is left out; a class needs no entry.
        progress: called with a line per stage.

    Raises:
        RawDataError: there is no image to evaluate, or a label means no class.
    """
    inventory = survey.read(place, classes, labels, progress)
    labelled = inventory[inventory["problem"].isna()].rename(columns={"label": "class"})
    skipped = inventory[inventory["problem"].notna()]
    labelled["patient"] = labelled["patient"].where(
        labelled["patient"].notna(), naming.UNKNOWN + labelled["path"]
    )
    kind, root = ("folder", place) if place.is_dir() else ("table", place.parent)
    return Images(
        root=root,
        table=labelled[_COLUMNS].assign(colour=np.nan).sort_values("path", ignore_index=True),
        described=f"images of the {kind} {place.resolve().name}",
        data_version=None,
        synthetic=False,
        skipped=dict(zip(skipped["path"], skipped["problem"], strict=True)),
    )
