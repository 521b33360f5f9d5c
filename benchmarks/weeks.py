"""Four weeks of a hospital in one command: growth, a correction, a withdrawal, a held challenger.

Makes a table of images (a third of them as DICOM, a third as 16-bit PNG, at three sites) and runs
the job ``retrain`` on it as a schedule would, once a week. Look at the result in the Dagster UI and
in the reports::

    python -m benchmarks.weeks --root weeks
    CXR_DATA_ROOT=weeks/data make dev
"""

import argparse
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from cxr_assets.radiographs import naming, synthesis
from cxr_serving.images import files

_SITES = ("north", "south", "west")
_FIRST = date(2026, 1, 5)
# Share of the patients that are known in each week.
_KNOWN = (0.7, 0.85, 1.0)
_COLUMNS = {
    "path": "file",
    "label": "finding",
    "patient": "pseudonym",
    "site": "hospital",
    "acquired": "date",
}
_WORDS = {"Bacterial": "bacterial_pneumonia", "None": "normal", "Viral": "viral_pneumonia"}


def main() -> None:
    """Run the four weeks, and print what each of them changed and decided."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("weeks"), help="a new folder")
    parser.add_argument("--folder", type=Path, help="images in Kaggle's layout; else synthetic")
    parser.add_argument(
        "overrides", nargs="*", help="of the experiment, such as trainer.max_epochs=6"
    )
    arguments = parser.parse_args()
    root: Path = arguments.root.resolve()
    if root.exists():
        sys.exit(f"{root} exists: name a new folder with --root")
    source = arguments.folder
    if source is None:
        source = root / "synthetic"
        synthesis.make(source, 60, seed=0)
    table = archive(source, root / "archive")
    week = Weeks(root, arguments.folder is None, arguments.overrides)

    for number, share in enumerate(_KNOWN, start=1):
        week.run(f"week {number}", known(table, share))
    patients = table["pseudonym"].unique()
    corrected = table.copy()
    corrected.loc[corrected["pseudonym"] == patients[0], "finding"] = "Viral"
    withdrawn = patients[1]
    week.command("data", "forget", withdrawn)
    week.run("week 4: one patient relabelled, one withdrawn", corrected)
    week.run(
        "week 5: a challenger after one epoch",
        corrected,
        "trainer.max_epochs=1",
        "trainer.warmup_epochs=0",
        "seed=1",
    )


def archive(source: Path, target: Path) -> pd.DataFrame:
    """Write the images of a folder as an archive would export them.

    Args:
        source: in Kaggle's layout.
        target: new folder for the images.

    Returns:
        One row per image with the columns of the table; splits are left to be drawn.
    """
    target.mkdir(parents=True)
    rows: list[dict[str, str]] = []
    numbers: dict[str, int] = {}
    for found in files.walk([source]):
        try:
            name = naming.parse(found.path)
        except naming.UnnamedImage:
            continue
        if name.patient is None:
            continue
        number = numbers.setdefault(name.patient, len(numbers))
        with Image.open(found.path) as image:
            grey = np.asarray(image.convert("L"))
        stem = f"{len(rows):06}"
        rows.append(
            {
                "file": save(grey, target / stem, ("dcm", "16 bits", "png")[len(rows) % 3]),
                "finding": next(word for word, label in _WORDS.items() if label == name.label),
                "pseudonym": f"P{number:05}",
                "hospital": _SITES[number % len(_SITES)],
                "date": (_FIRST + timedelta(days=number % 28)).isoformat(),
            }
        )
    return pd.DataFrame(rows)


def save(grey: npt.NDArray[np.uint8], stem: Path, kind: str) -> str:
    """Write an image so that every reader gets the same 8-bit grey levels from it.

    Returns:
        The name of the file.
    """
    if kind != "dcm":
        path = stem.with_suffix(".png")
        Image.fromarray(grey.astype(np.uint16) * 257 if kind == "16 bits" else grey).save(path)
        return path.name
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "DX"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = grey.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.PixelData = grey.tobytes() + b"\0" * (grey.size % 2)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = stem.with_suffix(".dcm")
    dcmwrite(path, dataset, enforce_file_format=True)
    return path.name


def known(table: pd.DataFrame, share: float) -> pd.DataFrame:
    """The rows of the first patients of each class."""
    first = table.groupby("pseudonym", sort=False)["finding"].first()
    chosen: list[str] = []
    for _, patients in first.groupby(first):
        chosen += list(patients.index[: round(share * len(patients))])
    return table[table["pseudonym"].isin(chosen)]


class Weeks:
    """The pipeline on a growing table.

    Args:
        root: folder with the archive; data root and Dagster's records go there.
        synthetic: whether the images are synthetic.
        overrides: of the experiment.
    """

    def __init__(self, root: Path, synthetic: bool, overrides: list[str]) -> None:
        self._table = root / "archive" / "labels.csv"
        self._overrides = [
            "data=table",
            f"data.table='{self._table}'",
            f"data.image_size={64 if synthetic else 160}",
            *(f"data.columns.{name}={column}" for name, column in _COLUMNS.items()),
            *(f"data.labels.{word}={label}" for word, label in _WORDS.items()),
            *overrides,
        ]
        self._environment = {
            **os.environ,
            "CXR_DATA_ROOT": str(root / "data"),
            "DAGSTER_HOME": str(root / "data" / "dagster"),
            "CXR_EXPERIMENT": "demo" if synthetic else "scratch",
        }
        self._data = root / "data"
        (self._data / "dagster").mkdir(parents=True)
        (self._data / "dagster" / "dagster.yaml").symlink_to(Path("dagster.yaml").resolve())

    def run(self, title: str, table: pd.DataFrame, *overrides: str) -> None:
        """Write the table, run the job, and print what changed and what was decided."""
        table.to_csv(self._table, index=False, sep=";")
        environment = self._environment | {
            "CXR_OVERRIDES": " ".join([*self._overrides, *overrides])
        }
        print(f"\n== {title}: {len(table):,} images", flush=True)
        log = self._data / "weeks.log"
        with log.open("a") as file:
            command = ["dagster", "job", "execute", "-m", "cxr_assets.definitions", "-j", "retrain"]
            failed = subprocess.run(
                [Path(sys.executable).parent / command[0], *command[1:]],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        if failed:
            sys.exit(f"the run failed: see {log}")
        self.command("summary")

    def command(self, *arguments: str) -> None:
        """Run ``cxr`` on the same data root."""
        subprocess.run(
            [Path(sys.executable).parent / "cxr", *arguments], env=self._environment, check=True
        )


if __name__ == "__main__":
    main()
