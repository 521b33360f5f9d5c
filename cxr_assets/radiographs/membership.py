"""Which images a model was trained, selected and tested on: ``split.csv`` of its bundle."""

from pathlib import Path

import pandas as pd

from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_assets.radiographs import dataset
from cxr_serving.model.bundle import BundleError, BundleRecord
from cxr_serving.model.dataset import Draw

SPLIT_FILE = "split.csv"
_COLUMNS = ["split", "class", "sha256"]


class MembershipError(Exception):
    """A bundle does not say which images it was trained on; the message says what to do."""


def write(bundle: Path, processed: Path) -> None:
    """List the images of the processed dataset by the hash of their source file.

    The list names neither files nor patients, and is not in their order either.

    Raises:
        DatasetError: there is no dataset.
    """
    images = dataset.manifest(processed).query("kept").sort_values(["split", "sha256"])
    images[_COLUMNS].to_csv(bundle / SPLIT_FILE, index=False)


def read(bundle: Path) -> pd.DataFrame:
    """One row per image: ``split``, ``class`` and ``sha256``, in hexadecimal.

    Raises:
        MembershipError: the file is missing or broken.
    """
    path = bundle / SPLIT_FILE
    try:
        images = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise MembershipError(
            f"{path} cannot be read ({' '.join(str(error).split())}): train the model again"
        ) from error
    if list(images.columns) != _COLUMNS:
        raise MembershipError(
            f"{path} has the columns {', '.join(images.columns)}, not {', '.join(_COLUMNS)}: "
            "train the model again"
        )
    return images


def known(layout: Layout, draw: Draw, progress: Progress) -> pd.DataFrame:
    """The images of all bundles and releases whose patients were drawn so; the newest prevail.

    Args:
        layout: where bundles and releases lie.
        draw: how patients are drawn.
        progress: called with a line about each that is broken.

    Returns:
        One row per image, as in :func:`read`.
    """
    found = [pd.DataFrame(columns=_COLUMNS, dtype=object)]
    for directory in layout.published():
        try:
            if BundleRecord.read(directory).draw == draw:
                found.append(read(directory))
        except (BundleError, MembershipError) as error:
            progress(f"no splits are taken from it: {error}")
    return pd.concat(found, ignore_index=True).drop_duplicates("sha256")
