"""Inventory and manifest of a table, without its images: ``python -m benchmarks.scaling.rows``.

No image is there: its size, time and header, its hash and that of its pixels are made of its path,
so that what is measured is in proportion to rows alone. Each step is a process of its own.
"""

import argparse
import zlib
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.measure import machine
from benchmarks.scaling.costs import measure
from benchmarks.scaling.steps import Step
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_assets.radiographs import inventory, raw
from cxr_assets.radiographs.decoding import Written
from cxr_assets.radiographs.preparation import prepare
from cxr_serving.images.reader import ImageReader

LABELS = {"Viral": "viral_pneumonia", "Bacterial": "bacterial_pneumonia", "None": "normal"}
# Of 2026; a time in nanoseconds.
SINCE = 1_770_000_000 * 10**9


def table(rows: int) -> pd.DataFrame:
    """Three images a patient, eight hospitals, ten years; a twentieth of the rows is of no use."""
    rng = np.random.default_rng(0)
    patients = np.sort(rng.integers(0, rows // 3, rows))
    days = pd.date_range("2016-01-01", periods=3650).strftime("%Y-%m-%d").to_numpy()
    return pd.DataFrame(
        {
            "path": [f"images/p{p:07}/s{n:08}.dcm" for n, p in enumerate(patients)],
            "label": rng.choice([*LABELS, "Unclear"], rows, p=[0.3, 0.3, 0.38, 0.02]),
            "patient": [f"P{patient:07}" for patient in patients],
            "site": rng.choice([f"hospital {number}" for number in range(8)], rows),
            "acquired": rng.choice(days, rows),
            "view": rng.choice(["PA", "AP", "LL"], rows, p=[0.6, 0.37, 0.03]),
            "sex": rng.choice(["M", "F"], rows),
            "age": rng.integers(0, 95, rows).astype(str),
        }
    )


def write_table(place: Path, number: int, files: int) -> None:
    """As one Parquet file, or as a folder of several."""
    rows = table(number)
    if files == 1:
        rows.to_parquet(place, index=False)
        return
    place.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(rows)), files)):
        rows.iloc[part].to_parquet(place / f"part-{number:05}.parquet", index=False)


def _stat(root: Path, path: str) -> tuple[int, int]:
    number = zlib.crc32(path.encode())
    return 1 + number % 10**7, SINCE + number


def _read(root: Path, path: str, reader: ImageReader) -> tuple[str, int, int, int, None]:
    return sha256(path.encode()).hexdigest(), 2000, 2400, 12, None


def _write(images: pd.DataFrame, size: int, progress: Progress) -> list[Written]:
    return [Written(sha256(one.encode()).hexdigest(), 0.5) for one in images["sha256"]]


def _quiet(line: str) -> None:
    pass


def _collect(experiment: Experiment, layout: Layout) -> None:
    raw.collect(experiment.data, experiment.classes, layout, _quiet)


def _prepare(experiment: Experiment, layout: Layout, seed: int = 0) -> None:
    data = experiment.data.model_copy(update={"seed": seed})
    prepare(layout, raw.read(layout), data, experiment.classes, _quiet, _write)


STEPS: Mapping[str, Step] = {
    "first inventory": _collect,
    "inventory, nothing new": _collect,
    "reading the inventory": lambda experiment, layout: raw.read(layout),
    "first manifest": _prepare,
    "manifest, nothing new": _prepare,
    "manifest after another one": partial(_prepare, seed=1),
}


def show(rows: int, files: int) -> None:
    """Measure each step with a table of so many rows, and print what it took."""
    words = [f"data.labels.{word}={label}" for word, label in LABELS.items()]
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        table = f"data.table={root / 'labels'}"
        experiment = compose("scratch", ["data=table", table, *words, "data.labels.Unclear=null"])
        # What this process once held, its children would not be charged for.
        measure(partial(write_table, root / "labels", rows, files), root)
        for name, step in STEPS.items():
            cost = measure(partial(step, experiment, Layout(root / "data")), root)
            cells = f"{cost.seconds:.1f} | {cost.memory / 1e6:,.0f} | {cost.memory / rows:,.0f}"
            print(f"| {rows:,} | {name} | {cells} |", flush=True)


def main() -> None:
    """Measure each step at each size, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--files", type=int, default=1, help="that the table consists of")
    given = parser.parse_args()
    print(f"{machine()}\n\n| rows | step | s of a processor | memory MB | bytes a row |")
    print("|---" * 5 + "|")
    with (
        patch.object(inventory, "stat", _stat),
        patch.object(inventory, "_read", _read),
        patch.object(raw, "stat", _stat),
    ):
        for rows in given.rows:
            show(rows, given.files)


if __name__ == "__main__":
    main()
