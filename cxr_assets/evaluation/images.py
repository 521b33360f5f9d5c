"""The images that models are evaluated on, and what models answer to them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_assets.radiographs import dataset, naming, raw
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_serving.model.bundle import BundleRecord
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import ImageError

_BATCH = 64


class ReportError(Exception):
    """The report cannot be made or read; the message says what does not fit and what to do."""


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        root: directory that paths are below.
        table: a row an image: ``path`` below the root, ``class``, ``patient``, ``sha256``, and
            ``width`` and ``height`` of the image as it came, in pixels.
        source: what they are, in words.
        data_version: of the dataset they belong to; None for a folder of which nothing is known.
        synthetic: whether they are synthesis.
        skipped: files that are no such images, with the reason.
        unknown_patients: images whose name says no patient, each counted as a patient of its own.
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
        """Of the N files."""
        return [self.root / path for path in self.table["path"]]

    def targets(self, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
        """Class indices [N]."""
        return np.array([classes.index(label) for label in self.table["class"]], dtype=np.int64)


def test_split(processed: Path) -> Images:
    """The test split of the processed dataset, ordered by file name.

    Raises:
        DatasetError: there is no processed dataset.
        ReportError: manifest and record do not agree.
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


def folder(directory: Path, progress: Callable[[str], None] = lambda line: None) -> Images:
    """Images of any folder in the raw layout: its ``test/`` where there is one, else all of it.

    A file that is broken, or named as no class is, is skipped, with the reason.

    Raises:
        RawDataError: there is no image that could be evaluated.
    """
    inventory = raw.survey(directory, progress)
    named = inventory[inventory["problem"].isna()].rename(columns={"label": "class"})
    skipped = inventory[inventory["problem"].notna()]
    unknown = named["patient"].isna()
    named["patient"] = named["patient"].where(~unknown, naming.UNKNOWN + named["path"])
    columns = ["path", "class", "patient", "sha256", "width", "height"]
    return Images(
        root=directory,
        table=named[columns].sort_values("path", ignore_index=True),
        source=f"images of the folder {directory.resolve().name}",
        data_version=None,
        synthetic=False,
        skipped=dict(zip(skipped["path"], skipped["problem"], strict=True)),
        unknown_patients=int(unknown.sum()),
    )


def predict(predictor: Predictor, paths: list[Path]) -> npt.NDArray[np.float32]:
    """Calibrated probabilities float32 [N, C] of the images in ``paths``.

    Raises:
        ReportError: an image cannot be read.
    """
    return np.concatenate([predictor.predict(images) for images in batches(predictor, paths)])


def batches(predictor: Predictor, paths: list[Path]) -> Iterator[npt.NDArray[np.uint8]]:
    """Images as the predictor takes them, uint8 [64 or fewer, size, size] at a time.

    Raises:
        ReportError: an image cannot be read.
    """
    for start in range(0, len(paths), _BATCH):
        yield decode(predictor, paths[start : start + _BATCH])


def decode(predictor: Predictor, paths: list[Path]) -> npt.NDArray[np.uint8]:
    """Images as the predictor takes them, uint8 [N, size, size].

    Raises:
        ReportError: an image cannot be read.
    """
    images = []
    for path in paths:
        try:
            images.append(predictor.preprocessing.decode(path))
        except (OSError, ImageError) as error:
            raise ReportError(
                f"{path} cannot be read ({error}): materialise processed_dataset again, or take "
                "the file away"
            ) from error
    return np.stack(images)


def provenance(record: BundleRecord) -> dict[str, Any]:
    """What a bundle says of itself, for JSON."""
    return record.model_dump(
        mode="json", exclude={"format_version", "classes", "validation", "files"}
    )
