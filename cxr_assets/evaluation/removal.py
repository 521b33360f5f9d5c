"""Takes images that have left the dataset out of the reports that list or show them."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from cxr_assets import written
from cxr_assets.evaluation.reports import REPORT
from cxr_assets.layout import PAGE_FILE, Layout
from cxr_assets.progress import Progress, held
from cxr_assets.radiographs import dataset, withdrawal
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_assets.radiographs.withdrawal import WITHDRAWN
from cxr_serving.model import store
from cxr_serving.model.atomic import write_file
from cxr_serving.model.report import ReportError

# A page marks each picture of images by their sha256.
_FIGURE = re.compile(r'<figure data-images="([0-9a-f ]+)">.*?</figure>', re.DOTALL)
_NOTE = '<p class="soft">The image was removed: it is no longer part of the dataset.</p>'


def remove_absent(layout: Layout, progress: Progress = lambda line: None) -> list[Path]:
    """Remove the images that have left the dataset from all reports below the data root.

    An image has left if its patient's withdrawal is on record, or if the manifest does not list its
    content although its source still belongs to the dataset. If the dataset has none of the images
    that a report shows of a source, that is another source of the same name, and they stay. Rows of
    tables and pictures of pages are removed; metrics and plots, which summarise all images, stay as
    they were measured. Doing it again changes nothing, so that it can follow an interruption.

    Args:
        layout: where dataset and reports are.
        progress: called with a line before it waits for another process.

    Returns:
        The reports that were changed.

    Raises:
        ReportError: a report cannot be changed; all others have been.
    """
    with held(layout.reports_lock, "reports are being written", progress):
        return _remove_absent(layout)


def _remove_absent(layout: Layout) -> list[Path]:
    listed = _listed(layout)
    withdrawn = frozenset().union(*(row.images for row in withdrawal.read(layout).values()))
    changed, failed = [], []
    for directory in _reports(layout):
        try:
            contents = _without(directory, listed, withdrawn)
            if contents:
                written.revise(directory, contents)
                changed.append(directory)
        except (OSError, ValueError, ValidationError) as error:
            failed.append(f"{directory} ({' '.join(str(error).split())})")
    _follow(layout)
    for page in [*layout.checks.glob("*.html"), *layout.raw.glob(layout.screened.name)]:
        _clean_check(page, listed, withdrawn)
    if failed:
        raise ReportError(
            "reports list or show images that have left the dataset, and cannot be changed: "
            f"{', '.join(failed)}: delete them"
        )
    return changed


def _reports(layout: Layout) -> Iterator[Path]:
    for version in store.versions(layout.reports):
        directory = layout.reports / version
        written.remove_leftovers(directory, functools.partial(written.foreign, kind=REPORT))
        yield directory
    if layout.set_aside.is_dir():
        yield from (path for path in sorted(layout.set_aside.iterdir()) if written.sealed(path))


def _listed(layout: Layout) -> set[tuple[str, str]] | None:
    """Source and sha256 of each image in the manifest; None if no image can have left."""
    if not layout.processed.exists() or DatasetRecord.read(layout.processed).synthetic:
        return None
    images = dataset.manifest(layout.processed)
    images = images[~images["reason"].astype("string").str.startswith(WITHDRAWN, na=False)]
    return set(zip(images["source"], images["sha256"], strict=True))


def tables(layout: Layout) -> Iterator[pd.DataFrame]:
    """The tables of all reports that have one row per image, as text."""
    for directory in _reports(layout):
        yield from _tables(directory).values()


def _tables(directory: Path) -> dict[str, pd.DataFrame]:
    read = {
        path.name: pd.read_csv(path, dtype=str, keep_default_na=False)
        for path in sorted(directory.glob("*.csv"))
        if path.stat().st_size > 1
    }
    return {name: table for name, table in read.items() if {"source", "sha256"} <= set(table)}


def _without(
    directory: Path, listed: set[tuple[str, str]] | None, withdrawn: frozenset[str]
) -> dict[str, bytes | None]:
    """New contents of the files of a report that hold images to remove."""
    found = _tables(directory)
    rows = [
        row
        for table in found.values()
        for row in zip(table["source"], table["sha256"], strict=True)
    ]
    absent = {image for _, image in rows if image in withdrawn}
    if listed is not None:
        same = {source for source, image in rows if (source, image) in listed}
        absent |= {row[1] for row in rows if row[0] in same and row not in listed}
    contents: dict[str, bytes | None] = {}
    for name, table in found.items():
        # A row about two images has a hash of each.
        matching = table.filter(regex="sha256$").isin(absent).any(axis=1)
        if matching.any():
            contents[name] = table[~matching].to_csv(index=False).encode()
    page = directory / PAGE_FILE
    if page.is_file():
        before = page.read_text(encoding="utf-8")
        if (after := _hide(before, absent)) != before:
            contents[PAGE_FILE] = after.encode()
    return contents


def _clean_check(
    page: Path, listed: set[tuple[str, str]] | None, withdrawn: frozenset[str]
) -> None:
    """Remove such images from the page about a table, if it is one of the dataset's."""
    before = page.read_text(encoding="utf-8")
    shown = {image for images in _FIGURE.findall(before) for image in images.split()}
    absent, known = shown & withdrawn, {image for _, image in listed or ()}
    if shown & known:
        absent |= shown - known
    if (after := _hide(before, absent)) != before:
        write_file(page, after.encode())


def _hide(page: str, absent: set[str]) -> str:
    """The page without the pictures of these images."""
    return _FIGURE.sub(lambda figure: _NOTE if absent & set(figure[1].split()) else figure[0], page)


def _follow(layout: Layout) -> None:
    """The page above all reports is a copy of the newest one's."""
    page, version = layout.reports / PAGE_FILE, store.read_pointer(layout.reports)
    if version is None or not page.is_file():
        return
    newest = layout.reports / version / PAGE_FILE
    if not newest.is_file():
        page.unlink()
    elif newest.read_bytes() != page.read_bytes():
        write_file(page, newest.read_bytes())
