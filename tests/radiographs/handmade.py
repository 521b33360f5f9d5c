"""Raw images of a table, made without reading one."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import dicoms
import numpy as np
import pandas as pd
from PIL import Image

from cxr_assets.experiment import Data, compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs.corrections import Corrected
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_assets.radiographs.inventory import COLUMNS, data_version
from cxr_assets.radiographs.preparation import prepare
from cxr_assets.radiographs.raw import RawImages
from cxr_assets.sources import Source

CLASSES = ("normal", "viral_pneumonia")

Row = dict[str, Any]


def write(path: Path, number: int) -> None:
    """A small PNG of noise, another for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (40, 50), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def row(root: Path, number: int, source: str = "ours", **columns: Any) -> Row:
    """The row of an image that is written here, if it is not there yet; ``columns`` prevail."""
    path = columns.pop("path", f"{number}.png")
    if not (root / source / path).exists() and "problem" not in columns:
        write(root / source / path, number)
    label = CLASSES[number % len(CLASSES)]
    found = {"source": source, "path": path, "bits": 8, "width": 50, "height": 40, "label": label}
    found |= {"patient": f"{source}/p{number}", "age": float("nan"), "given_label": label}
    if "problem" not in columns:
        found["sha256"] = sha256((root / source / path).read_bytes()).hexdigest()
    return {**dict.fromkeys(COLUMNS), **found, **columns}


def images(root: Path, rows: list[Row], sources: tuple[Source, ...] = ()) -> RawImages:
    """Raw images of the tables that rows name, or of ``sources``."""
    names = sorted({one["source"] for one in rows})
    given = {source.name: source for source in sources}
    tables = [
        given.get(name, Source(name=name, source="table", table=root / name / "labels.csv"))
        for name in names
    ]
    inventory = pd.DataFrame(rows, columns=list(COLUMNS))
    return RawImages(
        sources=tuple(tables),
        roots={name: root / name for name in names},
        data_version=data_version(inventory),
        unchanged=False,
        inventory=inventory,
        corrected=Corrected(),
    )


def data(**changes: object) -> Data:
    settings = {"folder": "unused", "image_size": 32, **changes}
    return compose("scratch", [f"data.{key}={value}" for key, value in settings.items()]).data


def make(
    layout: Layout, raw: RawImages, classes: tuple[str, ...] = CLASSES, **changes: object
) -> tuple[DatasetRecord, list[str]]:
    """The record of the dataset, and what was reported."""
    lines: list[str] = []
    record, _ = prepare(layout, raw, data(**changes), classes, lines.append)
    return record, lines


def write_formats(folder: Path, images: np.ndarray) -> None:
    """Four images as PNG and DICOM, of 8 and 16 bits."""
    deep = images.astype(np.uint16) * 257
    Image.fromarray(images[0]).save(folder / "10.png")
    Image.fromarray(deep[1]).save(folder / "11.png")
    (folder / "12.dcm").write_bytes(dicoms.dicom(images[2]))
    (folder / "13").write_bytes(dicoms.dicom(deep[3], BitsStored=16))
