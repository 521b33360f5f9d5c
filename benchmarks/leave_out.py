"""Which images are trained on, and which other ones, of a series or a site not seen, tested."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_assets.radiographs import dataset, naming, raw
from cxr_assets.radiographs.preparation import prepare
from cxr_assets.settings import load


class LeaveOutError(ValueError):
    """The images have no parts of which one can be left out; the message says what is missing."""


@dataclass(frozen=True)
class Direction:
    """One part left out.

    Attributes:
        tested: the part that is left out, in words.
        split: of each image that takes part, by its index: ``test`` if it is of that part; else ""
            (to be drawn: train or val).
    """

    tested: str
    split: pd.Series

    def counts(self, images: pd.DataFrame) -> str:
        """Images and patients on both sides, in words."""
        return ", ".join(
            f"{name} {len(rows):,} images of {rows['patient'].nunique():,} patients"
            for name, rows in (
                ("trained and validated on", images.loc[self.split.index[self.split == ""]]),
                ("tested on", images.loc[self.split.index[self.split == "test"]]),
            )
        )


def directions(images: pd.DataFrame) -> list[Direction]:
    """Each part left out once.

    Where the images are of several sites, the parts are the sites. Else they are two, by Kaggle's
    names: one series of normal images with the lower half of the patients' numbers of each cause of
    pneumonia, and the other series with the upper half. A patient with an image in the part that is
    left out is not trained on; an image of no part takes no part. A site that lacks a class is
    never left out.

    Args:
        images: one row per image: ``class``, ``patient`` and ``site``, None where it is unknown.

    Raises:
        LeaveOutError: there are neither two sites nor two series with images of every class.
    """
    sites = images["site"].astype(object).where(images["site"].notna(), None)
    part = sites if sites.nunique() > 1 else _of_series(images)
    found = list(_each(images, part))
    if not found:
        raise LeaveOutError(
            "no part of the images can be left out: it takes two sites (the column `site` of a "
            "table), or Kaggle's two series of normal images, with images of every class on both "
            "sides"
        )
    return found


def parts(
    experiment: Experiment, root: Path, progress: Progress
) -> tuple[pd.DataFrame, list[Direction]]:
    """The images that may be trained on, and each part of them that can be left out.

    Returns:
        One row per image, ``file`` being its absolute path; and the directions.
    """
    layout = Layout(root / "images")
    layout.root.mkdir(parents=True, exist_ok=True)
    withdrawn = load().layout.withdrawn
    if withdrawn.exists():  # who withdrew consent takes no part here, either
        shutil.copyfile(withdrawn, layout.withdrawn)
    sources = raw.collect(experiment.data, experiment.classes, layout, progress)
    prepare(layout, sources, experiment.data, experiment.classes, progress)
    rows = dataset.manifest(layout.processed)
    known = rows["kept"] & ~rows["split"].isin(["test", naming.EXTERNAL])
    rows = rows[known].reset_index(drop=True)
    rows["file"] = [
        str(sources.locate(source, path).absolute())
        for source, path in zip(rows["source"], rows["path"], strict=True)
    ]
    return rows, directions(rows)


def left_out(
    experiment: Experiment,
    images: pd.DataFrame,
    direction: Direction,
    layout: Layout,
    progress: Progress,
) -> Experiment:
    """Prepare the images with one part as the test split.

    Args:
        experiment: its settings of preparation are kept.
        images, direction: of :func:`parts`.
        layout: where the dataset goes.
        progress: called with a line per stage.

    Returns:
        The same experiment on these images.
    """
    table = layout.root / "images.csv"
    layout.root.mkdir(parents=True, exist_ok=True)
    rows = images.loc[direction.split.index].assign(split=direction.split)
    columns = {"file": "path", "class": "label", "patient": "patient", "split": "split"}
    rows[list(columns)].rename(columns=columns).sort_values("path").to_csv(table, index=False)
    values = experiment.model_dump()
    values["data"] |= {
        **{"source": "table", "table": table, "folder": None, "dataset": None},
        **{"columns": {}, "labels": {}, "sources": (), "corrections": None},
        "synthetic_patients": 0,
    }
    experiment = Experiment.model_validate(values)
    sources = raw.collect(experiment.data, experiment.classes, layout, progress)
    prepare(layout, sources, experiment.data, experiment.classes, progress)
    return experiment


def _each(images: pd.DataFrame, part: pd.Series) -> Iterator[Direction]:
    classes = set(images["class"])
    for name in sorted(part.dropna().unique()):
        tested = images[part == name]
        trained = images[part.notna() & (part != name) & ~images["patient"].isin(tested["patient"])]
        if classes == set(tested["class"]) == set(trained["class"]):
            split = pd.concat([pd.Series("", trained.index), pd.Series("test", tested.index)])
            yield Direction(str(name), split)


def _of_series(images: pd.DataFrame) -> pd.Series:
    """The part of each image by its patient's name, None if the name does not say one."""
    series = images["patient"].map(naming.series)
    number = images["patient"].map(naming.person).astype(float)
    medians = number.dropna().groupby(images["class"]).agg(lambda of: of.drop_duplicates().median())
    middle = images["class"].map(medians)
    names = sorted(series.dropna().unique())
    if len(names) != 2:
        return pd.Series(None, images.index, dtype=object)
    first, second = (
        f"{name} and the {half} person numbers"
        for name, half in zip(names, ("lower", "upper"), strict=True)
    )
    part = pd.Series(None, images.index, dtype=object)
    part[(series == names[0]) | (number <= middle)] = first
    part[(series == names[1]) | (number > middle)] = second
    return part
