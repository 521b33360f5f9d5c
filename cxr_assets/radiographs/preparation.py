"""Makes the processed dataset from raw images: an ImageFolder of grey PNGs and a manifest."""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd

from cxr_assets import written
from cxr_assets.experiment import Data
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress, held
from cxr_assets.radiographs import (
    changes,
    copies,
    dataset,
    decoding,
    identity,
    listing,
    membership,
    withdrawal,
)
from cxr_assets.radiographs.conversion import Writer, write_here
from cxr_assets.radiographs.dataset import (
    DATASET_FILE,
    MANIFEST_COLUMNS,
    MANIFEST_FILE,
    DatasetError,
    DatasetRecord,
)
from cxr_assets.radiographs.decoding import DecodingError
from cxr_assets.radiographs.naming import SPLITS
from cxr_assets.radiographs.raw import RawImages
from cxr_assets.radiographs.selection import Previous, draw, select
from cxr_assets.radiographs.shrinking import ShrunkError, require_whole
from cxr_assets.radiographs.split import SplitError
from cxr_serving.model.atomic import set_aside

KIND = "processed dataset"
_foreign = partial(written.foreign, kind=KIND)
# Kinds of reasons that count as corrupt: beyond a few, something is wrong with disk or export.
_CORRUPT = ("corrupt", "missing")


class PreparationError(Exception):
    """The images cannot be made into a dataset; the message says which images and why."""


def prepare(
    layout: Layout,
    raw: RawImages,
    data: Data,
    classes: Sequence[str],
    progress: Progress,
    write: Writer = write_here,
) -> tuple[DatasetRecord, bool]:
    """Decode, resize, split and write the images, or reuse the same dataset if it is there.

    A new dataset is made in a temporary folder and moved into place as a whole; an interrupted run
    leaves the old one or none. Images that are intact in the old one are taken from there, as links
    where the file system has them; only new ones are decoded. Patients stay in the splits that the
    old one has them in, or else a bundle or release of the same draw.

    Args:
        layout: where to write (``layout.processed``).
        raw: the verified images.
        data: input size, shares of the splits and tolerated share of corrupt images.
        classes: names of the classes, in index order.
        progress: called with a line per 1,000 images.
        write: how the PNGs are written.

    Returns:
        The record of the dataset, and whether it was reused.

    Raises:
        PreparationError: too many images are corrupt or missing, a class has no image in a split,
            a patient would move to another split, many images are gone from a source, or DICOM is
            not read on this machine.
    """
    with held(layout.processed_lock, "images are being prepared", progress):
        inventory = raw.inventory.copy(deep=False)  # the column of problems is replaced
        listing.withdraw(inventory, withdrawal.read(layout))  # it may be older than a withdrawal
        raw = replace(raw, inventory=inventory)
        previous, fault = _previous(layout.processed)
        trained = membership.known(layout, draw(data), progress)
        try:
            if previous is not None:
                require_whole(raw, previous, data)
            images = select(raw, data, classes, previous, trained)
        except (ShrunkError, SplitError) as error:
            raise PreparationError(str(error)) from error
        _count(images, classes, raw)  # fail before decoding if a class is already missing
        version = identity.of(images, raw, data, classes)
        if previous is not None and previous.record.data_version == version:
            try:
                record = dataset.verify(layout.processed)
                _reject_corrupt(previous.images, data)
                return record, True
            except DatasetError as error:
                fault = str(error)
        old = layout.processed
        if fault is not None:
            old = set_aside(layout.processed)
            progress(f"set aside as {old} and made again: {fault}")
        written.remove_leftovers(layout.processed, _foreign)
        unfinished = layout.root / f".processed.{os.getpid()}.partial"
        try:
            written.begin(unfinished, KIND)
            reusable = _reusable(old, previous, data)
            _write_images(unfinished, images, old, reusable, raw, data, progress, write)
            record = _describe(images, version, raw, data, classes, previous)
            images[MANIFEST_COLUMNS].to_parquet(unfinished / MANIFEST_FILE, index=False)
            (unfinished / DATASET_FILE).write_text(
                record.model_dump_json(indent=2) + "\n", encoding="utf-8"
            )
            written.seal(unfinished, KIND)
            written.replace(unfinished, layout.processed, _foreign, layout.set_aside)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return record, False


def _previous(directory: Path) -> tuple[Previous | None, str | None]:
    """The dataset that is there, or why it cannot be read; neither where there is none."""
    if not directory.exists():
        return None, None
    try:
        return Previous.read(directory), None
    except DatasetError as error:
        return None, str(error)


def _reusable(directory: Path, previous: Previous | None, data: Data) -> pd.DataFrame:
    """PNGs that need not be made again: what is known of them, by sha256 of the source."""
    columns = ["file", "pixels", "colour"]
    if previous is None:
        return pd.DataFrame(columns=columns, dtype=object)
    made = (previous.record.image_size, previous.record.decoding)
    rows = previous.kept[["sha256", *columns]].drop_duplicates("sha256").set_index("sha256")
    if made != (data.image_size, decoding.version()):
        return rows.iloc[:0]
    return rows[rows["file"].isin(written.intact(directory))]


def _write_images(
    directory: Path,
    images: pd.DataFrame,
    old: Path,
    reusable: pd.DataFrame,
    raw: RawImages,
    data: Data,
    progress: Progress,
    write: Writer,
) -> None:
    """Write the PNGs of all planned images; fills ``kept``, ``pixels``, ``colour``, ``reason``."""
    columns = ["source", "path", "sha256", "file"]
    planned = images.loc[images["reason"].isna(), columns]
    for folder in {file.rpartition("/")[0] for file in planned["file"]}:
        (directory / folder).mkdir(parents=True, exist_ok=True)
    known = planned["sha256"].isin(reusable.index)
    for image, file in planned.loc[known, ["sha256", "file"]].itertuples(index=False):
        written.link(old / reusable.at[image, "file"], directory / file)
    new = planned[~known]
    if known.any():
        progress(f"{known.sum():,} images are unchanged, {len(new):,} are new")
    for name in ("pixels", "colour"):
        images[name] = planned["sha256"].map(reusable[name]).astype(object)
    made = _made(directory, new, raw, data, progress, write)
    images.loc[new.index, made.columns] = made
    images["kept"] = images["reason"].isna()
    _reject_corrupt(images, data)
    copies.leave_out(images, raw.sources)
    images["kept"] = images["reason"].isna()
    for file in planned.loc[~images["kept"], "file"]:
        (directory / file).unlink(missing_ok=True)
    images.loc[~images["kept"], ["file", "pixels", "colour"]] = None
    images["colour"] = images["colour"].astype(float)


def _made(
    directory: Path,
    new: pd.DataFrame,
    raw: RawImages,
    data: Data,
    progress: Progress,
    write: Writer,
) -> pd.DataFrame:
    """What became of each new image."""
    places = pd.DataFrame(
        {
            "source": [
                str(raw.locate(source, path))  # a path takes thrice the memory
                for source, path in new[["source", "path"]].itertuples(index=False)
            ],
            "sha256": new["sha256"].to_numpy(),
            "target": [f"{directory}/{file}" for file in new["file"]],
        }
    )
    try:
        done = write(places, data.image_size, progress)
    except DecodingError as error:
        raise PreparationError(str(error)) from error
    return pd.DataFrame(done, index=new.index, columns=decoding.Written._fields, dtype=object)


def _describe(
    images: pd.DataFrame,
    version: str,
    raw: RawImages,
    data: Data,
    classes: Sequence[str],
    previous: Previous | None,
) -> DatasetRecord:
    kept = images.loc[images["kept"], ["source", "site", "split", "unknown"]]
    changed = None
    if previous is not None and previous.record.data_version == version:
        changed = previous.record.changes  # made again: these are what it was made for
    elif previous is not None:
        changed = changes.between(
            previous.images, images, previous.record.data_version, datetime.now(UTC).date()
        )
    return DatasetRecord(
        data_version=version,
        raw_data_version=raw.data_version,
        classes=tuple(classes),
        synthetic=raw.synthetic,
        image_size=data.image_size,
        decoding=decoding.version(),
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=data.seed,
        counts=_count(images, classes, raw),
        sources=dataset.by_split(kept, "source"),
        sites=dataset.by_split(kept, "site"),
        tables=tuple(source.name for source in raw.sources if source.source == "table"),
        unknown_patients=int(kept["unknown"].sum()),
        skipped=dict(Counter(reason.split(":")[0] for reason in images["reason"].dropna())),
        changes=changed,
    )


def _count(
    images: pd.DataFrame, classes: Sequence[str], raw: RawImages
) -> dict[str, dict[str, int]]:
    """Number of images not left out, by split and class; none may be zero, but in external."""
    usable = images[images["reason"].isna()]
    splits = [*SPLITS, *sorted(set(usable["split"]) - set(SPLITS))]
    counts = {split: dict.fromkeys(classes, 0) for split in splits}
    for (split, label), number in usable.groupby(["split", "class"]).size().items():
        counts[split][label] = int(number)
    for split, label in ((split, label) for split in SPLITS for label in classes):
        if counts[split][label]:
            continue
        of_class = images["class"] == label
        out = images[of_class & images["reason"].notna()]["reason"]
        aside = f", {len(out)} are left out ({out.mode()[0]}, ...)" if len(out) else ""
        others = usable[usable["class"] == label].groupby("split")["patient"].nunique()
        where = ", ".join(f"{number} in {name}" for name, number in others.items()) or "none"
        raise PreparationError(
            f"no {label} image is left in {split}, from {', '.join(map(str, raw.roots.values()))} "
            f"(patients of this class: {where}{aside}): every split needs images of every class; "
            "add patients of this class, or leave their split empty in the table so that it is "
            "drawn; data.seed=<another number> draws all patients again"
        )
    return counts


def _reject_corrupt(images: pd.DataFrame, data: Data) -> None:
    corrupt = images[images["reason"].str.startswith(_CORRUPT, na=False)]
    if len(corrupt) > data.max_corrupt_fraction * len(images):
        raise PreparationError(
            f"{len(corrupt)} of {len(images)} images are corrupt or missing "
            f"({', '.join(corrupt['path'].head(3))}, ...), more than "
            f"data.max_corrupt_fraction={data.max_corrupt_fraction:g} allows: "
            "replace them, or raise the limit"
        )
