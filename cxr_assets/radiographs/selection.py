"""Which images a dataset keeps, in which split and under which name, before any is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

import pandas as pd

from cxr_assets.experiment import Data
from cxr_assets.radiographs import dataset, naming
from cxr_assets.radiographs.dataset import MANIFEST_COLUMNS, DatasetError, DatasetRecord
from cxr_assets.radiographs.raw import RawImages
from cxr_assets.radiographs.split import assign_splits
from cxr_assets.sources import Source
from cxr_serving.model.dataset import Draw

UNKNOWN_PATIENT = (
    "unknown patient: the source names none; data.unknown_patients=own keeps such images and "
    "counts each as one patient"
)
# Columns that are known after decoding.
_DECODED = ("kept", "pixels", "colour")
# Of the name of the source file, so that no name is longer than the 255 bytes of file systems.
_STEM = 60


@dataclass(frozen=True)
class Previous:
    """The dataset that a new one follows.

    Attributes:
        record: its record.
        images: its manifest.
    """

    record: DatasetRecord
    images: pd.DataFrame

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read record and manifest.

        Raises:
            DatasetError: one of them is missing, broken or of another version of this program.
        """
        images = dataset.manifest(directory)
        if list(images.columns) != MANIFEST_COLUMNS:
            raise DatasetError(f"{directory / dataset.MANIFEST_FILE} has other columns")
        return cls(DatasetRecord.read(directory), images)

    @property
    def kept(self) -> pd.DataFrame:
        """The rows of images that are in the dataset."""
        return self.images[self.images["kept"]]

    def splits(self, images: pd.DataFrame) -> dict[str, str]:
        """Split of each patient that was drawn or given one.

        A source counts as the same while it has one of its images, wherever it lies.
        """
        key = ["source", "sha256"]
        shared = self.kept[key].merge(images[key].drop_duplicates(), on=key)["source"].unique()
        rows = self.kept[self.kept["source"].isin(shared) & self.kept["split"].isin(naming.SPLITS)]
        return dict(zip(rows["patient"], rows["split"], strict=True))


def draw(data: Data) -> Draw:
    """How patients are drawn."""
    return Draw(seed=data.seed, val_fraction=data.val_fraction, test_fraction=data.test_fraction)


def select(
    raw: RawImages,
    data: Data,
    classes: Sequence[str],
    previous: Previous | None,
    trained: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Plan a dataset.

    Args:
        raw: the verified images.
        data: how to draw splits, and what to do about unknown patients.
        classes: that every split needs.
        previous: the dataset before, whose patients stay where they are if they were drawn so.
        trained: ``split`` and ``sha256`` of the images that models know, whose patients stay, too.

    Returns:
        One row per row of the inventory, sorted by source and path, with the columns of the
        manifest besides those that are known after decoding, and ``unknown``: whether the patient
        of an image is not known. ``reason`` is None for images to keep; ``file`` for others.

    Raises:
        SplitError: a patient would move to another split.
    """
    images = raw.inventory.sort_values(["source", "path"], ignore_index=True)
    images = images.rename(columns={"label": "class", "problem": "reason"})
    images["reason"] = images["reason"].astype(object).where(images["reason"].notna(), None)
    _name_patients(images, data)
    _leave_out_duplicates(images, raw.sources, previous)
    # Where patient or source have another name now, the images tell who it is.
    recorded = {} if trained is None else _by_image(trained, images, raw.sources)
    if previous is not None and previous.record.draw == draw(data):
        recorded |= _by_image(previous.kept, images, raw.sources) | previous.splits(images)
    columns = {"source": "source", "split": "split", "class": "label", "patient": "patient"}
    usable = images.loc[images["reason"].isna(), list(columns)].rename(columns=columns)
    splits = assign_splits(usable, raw.sources, data, classes, recorded)
    images["split"] = splits.reindex(images.index).astype(object)
    images.loc[splits.index[splits.isna()], "reason"] = "leak: the patient has images in test"
    images["file"] = _files(images)
    return images[[column for column in (*MANIFEST_COLUMNS, "unknown") if column not in _DECODED]]


def _by_image(
    known: pd.DataFrame, images: pd.DataFrame, sources: Sequence[Source]
) -> dict[str, str]:
    """Where the images of each patient were whose split is not given; in train if in several."""
    rows = known[known["split"].isin(naming.SPLITS)]
    before = images["sha256"].map(dict(zip(rows["sha256"], rows["split"], strict=True)))
    drawn = images["source"].isin([one.name for one in sources if one.use == "all"])
    tables = images["source"].isin([one.name for one in sources if one.source == "table"])
    pooled = images["split"].isin(["train", "val"]) & before.isin(["train", "val"])
    free = drawn & (images["split"].isna() | (pooled & ~tables))
    found = images.loc[free & images["reason"].isna(), ["patient"]].assign(split=before)
    # Whoever learnt from one image of a patient has learnt from the patient.
    order = found["split"].map({"test": 0, "val": 1, "train": 2})
    found = found.assign(order=order).dropna().sort_values("order", kind="stable")
    return dict(zip(found["patient"], found["split"], strict=True))


def _name_patients(images: pd.DataFrame, data: Data) -> None:
    """Each image of an unknown patient is left out, or a patient of its own."""
    images["unknown"] = images["reason"].isna() & images["patient"].isna()
    if data.unknown_patients == "own":
        own = naming.UNKNOWN + images["source"] + "/" + images["path"]
        images["patient"] = images["patient"].astype(object).where(~images["unknown"], own)
    else:
        images.loc[images["unknown"], "reason"] = UNKNOWN_PATIENT


def _leave_out_duplicates(
    images: pd.DataFrame, sources: Sequence[Source], previous: Previous | None
) -> None:
    """Identical files would count twice or leak across splits: one is kept.

    That is one from a given test split, else from a source for test alone, else the one that was
    kept before, else one with a known patient and the shortest name: copies have longer names.
    Kaggle's test split is unchanged.
    """
    key = ["source", "path", "sha256"]
    usable = images.loc[images["reason"].isna(), [*key, "split", "unknown"]]
    usable = usable[usable.duplicated("sha256", keep=False)]
    if usable.empty:
        return
    external = usable["source"].isin([one.name for one in sources if one.use == "test"])
    training = usable["source"].isin([one.name for one in sources if one.use == "train"])
    given = (usable["split"] == "test") & ~training
    rank = pd.Series(2, index=usable.index).mask(given, 0).mask(external, 1)
    kept = set()
    if previous is not None:
        before = previous.kept[key]
        before = before[before["sha256"].isin(usable["sha256"])]
        kept = set(before.itertuples(index=False, name=None))
    ordered = usable.assign(
        rank=rank,
        new=[row not in kept for row in usable[key].itertuples(index=False, name=None)],
        length=usable["path"].str.len(),
    ).sort_values(["rank", "new", "unknown", "length", "source", "path"])
    first = ordered.drop_duplicates("sha256").set_index("sha256")
    original = ordered["sha256"].map(first["path"])
    tables = [one.name for one in sources if one.source == "table"]
    unchanged = (
        (ordered["rank"] < 2)
        & (ordered["source"] == ordered["sha256"].map(first["source"]))
        & ~ordered["source"].isin(tables)
    )
    repeated = ordered.index[ordered.duplicated("sha256") & ~unchanged]
    images.loc[repeated, "reason"] = "duplicate: of " + original[repeated]


def _files(images: pd.DataFrame) -> pd.Series:
    """Where the PNG of each kept image lies, below the dataset."""
    kept = images.loc[images["reason"].isna(), ["path", "split", "class", "sha256"]]
    if kept.empty:
        return pd.Series(None, index=images.index, dtype=object)
    stems = kept["path"].map(lambda path: PurePosixPath(path).stem[:_STEM])
    files = kept["split"] + "/" + kept["class"] + "/" + stems
    files = files.where(~files.duplicated(keep=False), files + "-" + kept["sha256"].str[:8])
    number = files.groupby(files).cumcount().astype(str)
    files = files.where(~files.duplicated(), files + "-" + number) + ".png"
    return files.reindex(images.index).astype(object).where(images["reason"].isna(), None)
