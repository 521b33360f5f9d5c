"""Images that any model is evaluated on: a folder or a table, listed without a data root."""

import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pandas as pd

from cxr_assets.progress import Progress
from cxr_assets.radiographs import annotations, folder, listing, naming
from cxr_assets.radiographs.inventory import RawDataError, examine
from cxr_assets.radiographs.labels import Words
from cxr_assets.radiographs.threads import in_order
from cxr_assets.sources import Source
from cxr_serving.images.reader import ImageReader
from cxr_serving.model.preprocessing import ImageError, Preprocessing


def read(
    place: Path, classes: Sequence[str], labels: Mapping[str, str | None], progress: Progress
) -> pd.DataFrame:
    """Inventory of images to evaluate a model on; splits and classes may be missing.

    If a folder has ``test/``, only that is listed, otherwise every ``NORMAL/`` and ``PNEUMONIA/``
    in it. A table has columns of the default names. Every image is decoded once, to find the
    broken ones.

    Args:
        place: a folder that has the images, itself or in ``chest_xray/``, or a table; nothing is
            written there.
        classes: of the model.
        labels: class by label, None for one that is left out; a class, and Kaggle's ``bacteria``
            and ``virus``, need no entry.
        progress: called with a line per stage.

    Returns:
        :data:`cxr_assets.radiographs.inventory.COLUMNS`, one row per file or row of the table, with
        paths below the folder, or that of the table.

    Raises:
        RawDataError: there is no readable image, or a label means no class of the model.
    """
    causes = {word: label for word, label in naming.CLASS_OF_CAUSE.items() if label in classes}
    words = Words({**causes, **labels}, classes)
    if not place.exists():
        raise RawDataError(
            f"there is no {place.absolute()}: expected a folder of images, or a table of them in "
            "CSV or Parquet"
        )
    if place.is_file():
        source = Source(name="table", source="table", table=place)
        root = annotations.root(source)
        rows = annotations.read(source, progress, renamed=False)
        expected = f"the columns path, label and patient, and labels such as {classes[0]}"
    else:
        source = Source(name="folder", source="folder", folder=place)
        tops = folder.candidates(root := folder.require_utf8(place.absolute()))
        top = next((top / "test" for top in tops if (top / "test").is_dir()), root)
        rows = folder.read(source.name, root, [top], progress)
        expected = f"NORMAL/ and PNEUMONIA/ with names like {', '.join(folder.EXAMPLES.values())}"
    rows = listing.labelled(examine(rows, root, None), words)
    _require_known(place, rows, classes)
    inventory = listing.finished(rows)
    named = inventory.index[inventory["problem"].isna()]
    with closing(ImageReader()) as reader, ThreadPoolExecutor() as pool:
        files = (root / path for path in inventory["path"][named])
        problems = in_order(pool, lambda file: _undecodable(file, reader), files)
        for index, problem in zip(named, problems, strict=True):
            inventory.loc[index, "problem"] = problem
    if inventory["problem"].notna().all():
        first = f": {inventory['problem'].iloc[0]}" if len(inventory) else ""
        raise RawDataError(
            f"no image could be read in {place.absolute()}{first}. Expected {expected}; "
            f"{folder.HELP}"
        )
    return inventory


def _require_known(place: Path, rows: pd.DataFrame, classes: Sequence[str]) -> None:
    """What is no class of the model would not count as an error of the model."""
    unlabelled = rows["problem"].str.startswith("label: ", na=False)
    if unknown := sorted(filter(None, rows.loc[unlabelled, "given_label"].unique())):
        given = sorted(rows["given_label"].dropna().unique())
        raise RawDataError(
            f"the images of {place.absolute()} have the labels {', '.join(given)}, but the classes "
            f"of the model are {', '.join(classes)}: say with --label "
            f"{shlex.quote(f'{unknown[0]}=CLASS')} which of them {unknown[0]} means, or with "
            f"--label {shlex.quote(f'{unknown[0]}=')} leave its images out"
        )


def _undecodable(path: Path, reader: ImageReader) -> str | None:
    try:
        reader.read(path.read_bytes(), Preprocessing(size=32))
    except (OSError, ImageError) as error:
        return f"corrupt: {error}"
    return None
