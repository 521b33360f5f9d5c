"""Makes the processed dataset from raw images: an ImageFolder of grey PNGs and a manifest."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
from filelock import FileLock
from PIL import Image

from cxr_assets import written
from cxr_assets.experiment import Data
from cxr_assets.layout import Layout
from cxr_assets.provenance import code_version, fingerprint
from cxr_assets.radiographs import dataset, naming
from cxr_assets.radiographs.dataset import (
    DATASET_FILE,
    MANIFEST_COLUMNS,
    MANIFEST_FILE,
    DatasetError,
    DatasetRecord,
    manifest,
)
from cxr_assets.radiographs.naming import KAGGLE_CLASSES, SPLITS
from cxr_assets.radiographs.raw import RawImages
from cxr_assets.radiographs.split import assign_splits
from cxr_serving.model.atomic import set_aside
from cxr_serving.model.preprocessing import ImageError, Preprocessing

KIND = "processed dataset"
_foreign = partial(written.foreign, kind=KIND)
UNKNOWN_PATIENT = (
    "unknown patient: the file name gives none; data.unknown_patients=own keeps such images and "
    "counts each as one patient"
)


class PreparationError(Exception):
    """The images cannot be made into a dataset; the message says which images and why."""


def prepare(
    layout: Layout, raw: RawImages, data: Data, progress: Callable[[str], None]
) -> tuple[DatasetRecord, bool]:
    """Decode, resize, split and write the images, or reuse the same dataset if it is there.

    A new dataset is made in a temporary folder and moved into place as a whole; an interrupted run
    leaves the old one or none. An existing one is verified by its hashes; if it is broken, it is
    set aside and made again.

    Args:
        layout: where to write (``layout.processed``).
        raw: the verified images.
        data: input size, share of validation patients and tolerated share of corrupt images.
        progress: called with a line per 1,000 images.

    Returns:
        The record of the dataset, and whether it was reused.

    Raises:
        PreparationError: too many images are corrupt, or a class has no image in a split.
    """
    version = _version(raw, data)
    layout.root.mkdir(parents=True, exist_ok=True)
    with FileLock(layout.root / ".processed.lock"):
        if (record := _whole(layout.processed, version, progress)) is not None:
            _reject_corrupt(manifest(layout.processed), raw.root, data)
            return record, True
        written.remove_leftovers(layout.processed, _foreign)
        unfinished = layout.root / f".processed.{os.getpid()}.partial"
        try:
            written.begin(unfinished, KIND)
            record = _write(unfinished, version, raw, data, progress)
            written.seal(unfinished, KIND)
            written.replace(unfinished, layout.processed, _foreign, layout.set_aside)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return record, False


def _whole(directory: Path, version: str, progress: Callable[[str], None]) -> DatasetRecord | None:
    """The dataset's record if it is whole and of this version; a broken one is set aside."""
    if not directory.exists():
        return None
    try:
        if DatasetRecord.read(directory).data_version != version:
            return None
        return dataset.verify(directory)
    except DatasetError as error:
        progress(f"set aside as {set_aside(directory)} and made again: {error}")
        return None


def _write(
    directory: Path,
    version: str,
    raw: RawImages,
    data: Data,
    progress: Callable[[str], None],
) -> DatasetRecord:
    images = _plan(raw.inventory, data)
    _count(images, raw.root)  # fail before decoding if a class is already missing
    for split in SPLITS:
        for label in KAGGLE_CLASSES:
            (directory / split / label).mkdir(parents=True)
    planned = images[images["reason"].isna()]
    preprocessing = Preprocessing(data.image_size)

    def convert(path: str, file: str) -> str | None:
        try:
            pixels = preprocessing.decode(raw.root / path)
        except ImageError as error:
            return f"corrupt: {error}"
        # Level 6 takes three times as long and makes files a tenth smaller.
        Image.fromarray(pixels).save(directory / file, compress_level=1)
        return None

    reasons: list[str | None] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for reason in pool.map(convert, planned["path"], planned["file"]):
            reasons.append(reason)
            if len(reasons) % 1000 == 0:
                progress(f"prepared {len(reasons)} of {len(planned)} images")
    images.loc[planned.index, "reason"] = pd.Series(reasons, index=planned.index, dtype=object)

    _reject_corrupt(images, raw.root, data)
    kept = images["reason"].isna()
    images["kept"] = kept
    images.loc[~kept, "file"] = None
    counts = _count(images, raw.root)
    images.rename(columns={"label": "class"})[MANIFEST_COLUMNS].to_parquet(
        directory / MANIFEST_FILE, index=False
    )
    record = DatasetRecord(
        data_version=version,
        raw_data_version=raw.data_version,
        classes=KAGGLE_CLASSES,
        synthetic=raw.synthetic,
        image_size=data.image_size,
        val_fraction=data.val_fraction,
        seed=data.seed,
        counts=counts,
        unknown_patients=int((kept & images["unknown"]).sum()),
        skipped=dict(Counter(reason.split(":")[0] for reason in images.loc[~kept, "reason"])),
    )
    (directory / DATASET_FILE).write_text(record.model_dump_json(indent=2) + "\n")
    return record


def _count(images: pd.DataFrame, root: Path) -> dict[str, dict[str, int]]:
    """Number of images not left out, by split and class; none may be zero."""
    counts = {split: dict.fromkeys(KAGGLE_CLASSES, 0) for split in SPLITS}
    usable = images[images["reason"].isna()]
    for (split, label), number in usable.groupby(["split", "label"]).size().items():
        counts[split][label] = int(number)
    for split, labels in counts.items():
        for label, number in labels.items():
            if number == 0:
                out = images[(images["label"] == label) & images["reason"].notna()]["reason"]
                aside = f" ({len(out)} are left out: {out.mode()[0]}, ...)" if len(out) else ""
                raise PreparationError(
                    f"no {label} image is left in {split}, from {root}{aside}: "
                    "every split needs images of every class"
                )
    return counts


def _reject_corrupt(images: pd.DataFrame, root: Path, data: Data) -> None:
    corrupt = images[images["reason"].str.startswith("corrupt", na=False)]
    if len(corrupt) > data.max_corrupt_fraction * len(images):
        raise PreparationError(
            f"{len(corrupt)} of {len(images)} images in {root} are corrupt "
            f"({', '.join(corrupt['path'].head(3))}, ...), more than "
            f"data.max_corrupt_fraction={data.max_corrupt_fraction:g} allows: "
            "replace them, or raise the limit"
        )


def _plan(inventory: pd.DataFrame, data: Data) -> pd.DataFrame:
    """One row per source image: new split, file name below the dataset, and why it is left out."""
    images = inventory.sort_values("path", ignore_index=True)
    images["reason"] = images["problem"].astype(object).where(images["problem"].notna(), None)
    images["unknown"] = images["reason"].isna() & images["patient"].isna()
    if data.unknown_patients == "own":
        images["patient"] = images["patient"].where(
            ~images["unknown"], naming.UNKNOWN + images["path"]
        )
    else:
        images.loc[images["unknown"], "reason"] = UNKNOWN_PATIENT
    # Identical files would count twice in training or leak across splits: outside test one is kept,
    # and none that is also in test. Test itself is unchanged. Of identical files, one with a known
    # patient and the shortest name is kept: copies have longer names.
    usable = images[images["reason"].isna()]
    ordered = usable.assign(
        elsewhere=usable["split"] != "test", length=usable["path"].str.len()
    ).sort_values(["elsewhere", "unknown", "length", "path"])
    first = ordered.drop_duplicates("sha256").set_index("sha256")["path"]
    repeated = ordered.index[ordered.duplicated("sha256") & (ordered["split"] != "test")]
    images.loc[repeated, "reason"] = "duplicate: of " + images.loc[repeated, "sha256"].map(first)
    usable = images[images["reason"].isna()]
    splits = assign_splits(usable, data.val_fraction, data.seed)
    images["split"] = splits.reindex(images.index).astype(object)
    leaking = splits.index[splits.isna()]
    images.loc[leaking, "reason"] = "leak: the patient has images in test"
    stems = (
        images["split"] + "/" + images["label"] + "/" + images["path"].map(lambda p: Path(p).stem)
    )
    stems = stems[images["reason"].isna()]
    clashing = stems.duplicated(keep=False)
    images["file"] = stems.where(~clashing, stems + "-" + images["sha256"].str[:8]) + ".png"
    return images


def _version(raw: RawImages, data: Data) -> str:
    """Version of the dataset: a digest of everything that shapes its content."""
    content = {
        "raw": raw.data_version,
        "synthetic": raw.synthetic,
        "image_size": data.image_size,
        "val_fraction": data.val_fraction,
        "seed": data.seed,
        "unknown_patients": data.unknown_patients,
        "code": code_version(__name__),
    }
    return fingerprint(content)
