"""Images as the archive of a hospital exports them: DICOM and PNG by number, and a table."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from cxr_assets.radiographs import naming
from cxr_serving.images import files

# The Sunday on which the table is exported for the first time.
SUNDAY = date(2026, 1, 4)
SITES = ("north", "south", "west")
KINDS = ("dcm", "16 bits", "8 bits")
# Columns and words of the table, by those of the pipeline.
COLUMNS = {
    "path": "file",
    "label": "finding",
    "patient": "pseudonym",
    "site": "hospital",
    "acquired": "date",
}
WORDS = {"Bacterial": "bacterial_pneumonia", "None": "normal", "Viral": "viral_pneumonia"}


def export(source: Path, target: Path) -> pd.DataFrame:
    """Write the images of a folder, every third as DICOM, as 16-bit PNG and as 8-bit PNG.

    Of twenty patients, fourteen have been there before :data:`SUNDAY`, and three come in each of
    the two weeks after it.

    Args:
        source: in Kaggle's layout. Images without a class or patient in their names are left out.
        target: new folder for the images.

    Returns:
        One row per image with :data:`COLUMNS`; ``file`` is below ``target``.
    """
    target.mkdir(parents=True)
    words = {label: word for word, label in WORDS.items()}
    rows: list[tuple[str, ...]] = []
    patients: dict[str, int] = {}
    for found in files.walk([source]):
        try:
            name = naming.parse(found.path)
        except naming.UnnamedImage:
            continue
        if name.patient is None:
            continue
        number = patients.setdefault(name.patient, len(patients))
        file = save(grey(found.path), target / f"{len(rows):06}", KINDS[len(rows) % 3])
        rows.append(
            (
                file.name,
                words[name.label],
                f"P{number:05}",
                SITES[number % len(SITES)],
                _acquired(number % 20).isoformat(),
            )
        )
    return pd.DataFrame(rows, columns=list(COLUMNS.values()))


def _acquired(place: int) -> date:
    week = max(0, (place - 11) // 3)
    return SUNDAY + timedelta(days=7 * week - 1 - (0 if week else 20 * place))


def grey(path: Path) -> npt.NDArray[np.uint8]:
    """The grey levels of an image [height, width], as the pipeline takes them from it."""
    with Image.open(path) as image:
        image.draft("L", image.size)
        return np.asarray(image.convert("L"))


def save(levels: npt.NDArray[np.uint8], stem: Path, kind: str) -> Path:
    """Write an image so that every reader gets these grey levels from it.

    Args:
        levels: [height, width].
        stem: of the file, without a suffix.
        kind: one of :data:`KINDS`.

    Returns:
        The file.
    """
    if kind != "dcm":
        path = stem.with_suffix(".png")
        # 257 maps 255 to 65535, so that the 8 bits above are the old ones.
        Image.fromarray(levels.astype(np.uint16) * 257 if kind == "16 bits" else levels).save(path)
        return path
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "DX"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = levels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    # The identity.
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.PixelData = levels.tobytes() + b"\0" * (levels.size % 2)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = stem.with_suffix(".dcm")
    dcmwrite(path, dataset, enforce_file_format=True)
    return path
