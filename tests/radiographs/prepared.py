"""A small folder of images, and the dataset that is made from it."""

from pathlib import Path

import numpy as np
from PIL import Image

from cxr_assets.experiment import Data, compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_assets.radiographs.preparation import prepare


def silent(line: str) -> None:
    pass


def twelve_patients(root: Path) -> Path:
    """24 small, different images of 12 patients, in Kaggle's layout."""
    rng = np.random.default_rng(0)
    number = 0
    for split, patients in (("train", range(1, 4)), ("test", range(10, 11))):
        for name in (
            "NORMAL/IM-{p:04}-{n:04}",
            "PNEUMONIA/person{p}_bacteria_{n}",
            "PNEUMONIA/person{p}_virus_{n}",
        ):
            for patient in patients:
                for _ in range(2):
                    number += 1
                    path = root / split / f"{name.format(p=patient, n=number)}.jpeg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    pixels = rng.integers(0, 255, (50, 70), dtype=np.uint8)
                    Image.fromarray(pixels).save(path)
    return root


def data(source: Path, **changes: object) -> Data:
    settings = {"folder": source, "image_size": 32, "val_fraction": 0.3, **changes}
    return compose("scratch", [f"data.{key}={value}" for key, value in settings.items()]).data


def make(source: Path, layout: Layout, **changes: object) -> tuple[DatasetRecord, bool]:
    settings = data(source, **changes)
    return prepare(
        layout,
        raw.collect(settings, KAGGLE_CLASSES, layout, silent),
        settings,
        KAGGLE_CLASSES,
        silent,
    )
