"""Reading the processed dataset."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from pydantic import ValidationError

from cxr_assets import written
from cxr_serving.model import processors
from cxr_serving.model.dataset import Dataset

MANIFEST_FILE = "manifest.parquet"
DATASET_FILE = "dataset.json"
MANIFEST_COLUMNS = [
    "source", "path", "split", "class", "given_label", "patient",
    "site", "acquired", "view", "sex", "age",
    "sha256", "width", "height", "bits", "kept", "reason", "file", "pixels", "colour",
]  # fmt: skip


class DatasetError(Exception):
    """The processed dataset is missing or broken; the message says what to do."""


class DatasetRecord(Dataset):
    """The contents of ``dataset.json``."""

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
    """Check that a dataset is whole: all files are unchanged, and record and manifest agree.

    Raises:
        DatasetError: there is none, or a file is missing or changed; the message names it.
    """
    record = DatasetRecord.read(directory)
    problem = written.fault(directory)
    if problem is None:
        images = manifest(directory).query("kept")
        listed = images.groupby(["split", "class"]).size().to_dict()
        counted = {
            (split, label): number
            for split, labels in record.counts.items()
            for label, number in labels.items()
            if number
        }
        if listed != counted:
            problem = f"the counts of {directory / DATASET_FILE} do not match {MANIFEST_FILE}"
    if problem is not None:
        raise DatasetError(f"{problem}: materialise processed_dataset again")
    return record


def manifest(
    directory: Path, where: Sequence[tuple[str, str, object]] | None = None
) -> pd.DataFrame:
    """One row per source image, with ``MANIFEST_COLUMNS``.

    Args:
        directory: the processed dataset.
        where: conditions, as of :func:`pandas.read_parquet`; rows that do not fulfil all of them
            are never in memory as a whole.

    Raises:
        DatasetError: it is missing or broken.
    """
    path = directory / MANIFEST_FILE
    try:
        return pd.read_parquet(path, filters=where and list(where))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read ({' '.join(str(error).split())}): materialise "
            "processed_dataset again"
        ) from error


def kept(directory: Path, split: str) -> pd.DataFrame:
    """Rows of the manifest for the images of a split.

    They are sorted by their pixels: training does not depend on the names or formats of the files.
    """
    images = manifest(directory, [("kept", "==", True), ("split", "==", split)])
    return images.sort_values(["pixels", "file"], ignore_index=True)


def by_split(images: pd.DataFrame, column: str) -> dict[str, dict[str, int]]:
    """Number of images by a column of the manifest and by split; empty values count nowhere."""
    counts: dict[str, dict[str, int]] = {}
    for (name, split), number in images.groupby([column, "split"]).size().items():
        counts.setdefault(name, {})[split] = int(number)
    return counts


def labels(images: pd.DataFrame, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Class indices in ``classes``, int64 [N], of rows of the manifest."""
    return np.array([classes.index(label) for label in images["class"]], dtype=np.int64)


def read(directory: Path, images: Sequence[str], size: int) -> npt.NDArray[np.uint8]:
    """Read images, in parallel.

    Args:
        directory: the processed dataset.
        images: their files, as in the manifest.
        size: side of every image, in pixels.

    Returns:
        uint8 [N, size, size], in the order of ``images``.

    Raises:
        DatasetError: an image is missing or has another size.
    """
    pixels = np.empty((len(images), size, size), dtype=np.uint8)

    def fill(position: int, file: str) -> None:
        try:
            with Image.open(directory / file, formats=("PNG",)) as image:
                pixels[position] = np.asarray(image)
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{directory / file} cannot be read as a {size} x {size} grey PNG ({error}): "
                "materialise processed_dataset again"
            ) from error

    with ThreadPoolExecutor(processors.count()) as pool:
        list(pool.map(fill, range(len(images)), images))
    return pixels


def batches(
    directory: Path, files: Sequence[str], size: int, batch: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """As :func:`read`, but ``batch`` images at a time, so that a split need not fit into memory."""
    for start in range(0, len(files), batch):
        yield read(directory, files[start : start + batch], size)


def samples(directory: Path, split: str, number: int) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """The first ``number`` images of each class, in the order of :func:`kept`.

    Returns:
        uint8 [size, size] each, by class.

    Raises:
        DatasetError: there is no dataset, or it is broken.
    """
    images = kept(directory, split)
    record = DatasetRecord.read(directory)
    chosen = {
        label: images["file"][images["class"] == label].head(number) for label in record.classes
    }
    return {
        label: list(read(directory, files, record.image_size)) for label, files in chosen.items()
    }
