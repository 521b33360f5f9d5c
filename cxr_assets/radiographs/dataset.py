"""The processed dataset as the rest of the pipeline reads it."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from cxr_assets import written
from cxr_assets.radiographs.naming import CLASSES

MANIFEST_FILE = "manifest.parquet"
DATASET_FILE = "dataset.json"
MANIFEST_COLUMNS = [
    "path", "split", "class", "patient", "sha256", "width", "height", "kept", "reason", "file",
]  # fmt: skip


class DatasetError(Exception):
    """The processed dataset is missing or not what it says it is."""


class DatasetRecord(BaseModel):
    """The contents of ``dataset.json``.

    Attributes:
        data_version: sha256 over all that shapes the dataset, hexadecimal.
        raw_data_version: of the films it was made from.
        synthetic: whether the films are phantoms.
        image_size: side of the square films, in pixels.
        val_fraction: share of the patients that went to validation.
        seed: of the draw of these patients.
        counts: films by split and class.
        unknown_patients: images whose patient is unknown, each counted as a patient of its own.
        skipped: films left out, by kind of reason; the manifest has each with its reason.
    """

    model_config = ConfigDict(frozen=True)

    data_version: str
    raw_data_version: str
    synthetic: bool
    image_size: int
    val_fraction: float
    seed: int
    counts: dict[str, dict[str, int]]
    unknown_patients: int = 0
    skipped: dict[str, int]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read ``dataset.json``.

        Raises:
            DatasetError: there is none, or it is broken.
        """
        path = directory / DATASET_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise DatasetError(
                f"no dataset in {directory}: materialise processed_dataset first"
            ) from error
        except (OSError, ValidationError) as error:
            raise DatasetError(
                f"{path} is not a dataset record ({' '.join(str(error).split())}): materialise "
                "processed_dataset again"
            ) from error


def verify(directory: Path) -> DatasetRecord:
    """Check that a dataset is whole: every file as it was written, and counted as it is listed.

    Raises:
        DatasetError: there is none; else the message names what is missing or altered.
    """
    record = DatasetRecord.read(directory)
    problem = written.fault(directory)
    if problem is None:
        films = manifest(directory).query("kept")
        listed = films.groupby(["split", "class"]).size().to_dict()
        counted = {
            (split, label): number
            for split, labels in record.counts.items()
            for label, number in labels.items()
            if number
        }
        if listed != counted:
            problem = f"{directory / DATASET_FILE} counts other images than {MANIFEST_FILE} lists"
    if problem is not None:
        raise DatasetError(f"{problem}: materialise processed_dataset again")
    return record


def manifest(directory: Path) -> pd.DataFrame:
    """One row per source film, with ``MANIFEST_COLUMNS``.

    Raises:
        DatasetError: it is missing or broken.
    """
    path = directory / MANIFEST_FILE
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read ({' '.join(str(error).split())}): materialise "
            "processed_dataset again"
        ) from error


def kept(directory: Path, split: str) -> pd.DataFrame:
    """The manifest's rows of the films in a split, ordered by file name."""
    films = manifest(directory)
    films = films[films["kept"] & (films["split"] == split)]
    return films.sort_values("file", ignore_index=True)


def labels(films: pd.DataFrame) -> torch.Tensor:
    """int64 [N] class indices of rows of the manifest."""
    return torch.tensor([CLASSES.index(label) for label in films["class"]], dtype=torch.int64)


def read(directory: Path, films: Sequence[str], size: int) -> torch.Tensor:
    """Read films, several at a time.

    Args:
        directory: the processed dataset.
        films: their files, as in the manifest.
        size: side of every film, in pixels.

    Returns:
        uint8 [N, size, size], in the order asked for.

    Raises:
        DatasetError: a film is missing or has another size.
    """
    pixels = np.empty((len(films), size, size), dtype=np.uint8)

    def fill(position: int, file: str) -> None:
        try:
            with Image.open(directory / file, formats=("PNG",)) as image:
                pixels[position] = np.asarray(image)
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{directory / file} cannot be read as a {size} x {size} grey PNG ({error}): "
                "materialise processed_dataset again"
            ) from error

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(fill, range(len(films)), films))
    return torch.from_numpy(pixels)


def batches(
    directory: Path, files: Sequence[str], size: int, batch: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """The same, ``batch`` images at a time: a split of any size takes no more memory than these."""
    for start in range(0, len(files), batch):
        yield read(directory, files[start : start + batch], size).numpy()


def samples(directory: Path, split: str, number: int) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """The first ``number`` images of each class, by file name: uint8 [size, size] each.

    Raises:
        DatasetError: there is no dataset, or it is broken.
    """
    films = kept(directory, split)
    size = DatasetRecord.read(directory).image_size
    chosen = {label: films["file"][films["class"] == label].head(number) for label in CLASSES}
    return {label: list(read(directory, files, size).numpy()) for label, files in chosen.items()}
