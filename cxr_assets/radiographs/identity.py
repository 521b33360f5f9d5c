"""Which dataset a plan is: the same images and settings have the same version."""

from collections.abc import Sequence
from hashlib import sha256

import pandas as pd

from cxr_assets.provenance import fingerprint
from cxr_assets.radiographs import decoding, listing
from cxr_assets.radiographs.dataset import MANIFEST_COLUMNS
from cxr_assets.radiographs.raw import RawImages
from cxr_assets.sources import Data

# Rows whose JSON is in memory at a time.
_BATCH = 4096


def of(images: pd.DataFrame, raw: RawImages, data: Data, classes: Sequence[str]) -> str:
    """Version of a dataset: a digest of its plan, and of all that shapes its pixels.

    Args:
        images: the plan, see :func:`cxr_assets.radiographs.selection.select`.
        raw: the images that it is of.
        data: how the dataset is made.
        classes: of the experiment.
    """
    content = {
        "images": _digest(images.drop(columns="unknown")),
        "columns": MANIFEST_COLUMNS,
        "classes": list(classes),
        "synthetic": raw.synthetic,
        "image_size": data.image_size,
        "val_fraction": data.val_fraction,
        "test_fraction": data.test_fraction,
        "seed": data.seed,
        "decoding": decoding.version(),
    }
    return fingerprint(content)


def _digest(rows: pd.DataFrame) -> str:
    """sha256 of rows as one array of JSON, of which only a part is in memory."""
    digest = sha256(b"[")
    for start in range(0, len(rows), _BATCH):
        part = rows.iloc[start : start + _BATCH]
        part = part.assign(reason=listing.of_one_file(part["reason"]))
        array = part.to_json(orient="values", double_precision=15)
        digest.update(f"{',' if start else ''}{array[1:-1]}".encode())
    digest.update(b"]")
    return digest.hexdigest()
