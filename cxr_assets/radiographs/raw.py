"""Raw images: downloaded, synthetic or read in place, then verified and listed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from cxr_assets.layout import Layout
from cxr_assets.progress import Progress, held
from cxr_assets.radiographs import (
    annotations,
    corrections,
    folder,
    listing,
    synthesis,
    withdrawal,
)
from cxr_assets.radiographs.corrections import Corrected
from cxr_assets.radiographs.inventory import COLUMNS, KNOWN, data_version, stat
from cxr_assets.radiographs.inventory import RawDataError as RawDataError
from cxr_assets.radiographs.labels import Words
from cxr_assets.radiographs.withdrawal import Withdrawal
from cxr_assets.sources import Data, Source
from cxr_serving.model import atomic

INVENTORY_FILE = "inventory.parquet"


@dataclass(frozen=True)
class RawImages:
    """Verified images and their inventory.

    Attributes:
        sources: where they come from.
        roots: absolute folder that the paths of a source are relative to, by name of the source.
        data_version: see :func:`cxr_assets.radiographs.inventory.data_version`.
        unchanged: whether the previous inventory described the same content.
        inventory: one row per file, or per row of a table, with
            :data:`cxr_assets.radiographs.inventory.COLUMNS`.
        corrected: what ``data.corrections`` did.
    """

    sources: tuple[Source, ...]
    roots: dict[str, Path]
    data_version: str
    unchanged: bool
    inventory: pd.DataFrame
    corrected: Corrected

    @property
    def synthetic(self) -> bool:
        """Whether all of them are synthetic images."""
        return all(source.source == "synthetic" for source in self.sources)

    def locate(self, source: str, path: str) -> Path:
        """The file of a row of the inventory."""
        return self.roots[source] / path


def collect(data: Data, classes: Sequence[str], layout: Layout, progress: Progress) -> RawImages:
    """Download, make or locate the images, verify them, and write their inventory.

    Only image headers are decoded. Files with the size and time of the last inventory are not read
    again. Where this fails, the last inventory stays.

    Args:
        data: where the images come from.
        classes: of the experiment.
        layout: downloads, synthetic images and the inventory go to ``layout.raw``; folders and
            tables of others are never written to.
        progress: called with a line per stage.

    Raises:
        RawDataError: there are no images, a table cannot be read, or a split or a class has none.
        WithdrawalError: the record of withdrawn patients is broken.
    """
    with held(layout.raw_lock, "images are being collected", progress):
        roots = {source.name: _root(source, data, layout, progress) for source in data.listed}
        version, known = _earlier(layout, roots, progress)
        withdrawn = withdrawal.read(layout)
        images = _list(data.listed, roots, classes, known, data.corrections, withdrawn, progress)
        images = replace(images, unchanged=images.data_version == version)
        listing.require(images.inventory, data.listed, roots, classes)
        _save(images, layout)
    skipped = int(images.inventory["problem"].notna().sum())
    progress(
        f"{len(images.inventory) - skipped:,} images, {skipped:,} files or rows skipped, "
        f"data version {images.data_version[:12]}{', unchanged' if images.unchanged else ''}"
    )
    return images


def check(
    source: Source,
    classes: Sequence[str],
    withdrawn: Mapping[str, Withdrawal],
    progress: Progress,
) -> RawImages:
    """List the images of a folder or a table as :func:`collect` would, and write nothing.

    Args:
        source: which one; it need not be one of the pipeline's.
        classes: of the experiment.
        withdrawn: the record of withdrawn patients; their images are known by their hashes.
        progress: called with a line per stage.

    Raises:
        RawDataError: there is no such folder or table, or it cannot be read.
    """
    roots = {source.name: _place(source)}
    return _list((source,), roots, classes, {}, None, withdrawn, progress)


def read(layout: Layout) -> RawImages:
    """The images of the last :func:`collect`.

    Raises:
        RawDataError: it never ran, or the files have changed since.
    """
    images = load(layout)
    if images is None:
        raise RawDataError(
            f"no intact {INVENTORY_FILE} in {layout.raw}: materialise raw_kaggle first"
        )
    noted = images.inventory[["source", "path", "bytes", "mtime_ns"]]
    for source, path, *before in noted.itertuples(index=False):
        if stat(images.roots[source], path) != tuple(before):
            raise RawDataError(
                f"{images.locate(source, path)} is missing or has changed since raw_kaggle checked "
                "it: materialise raw_kaggle again"
            )
    return images


def _list(
    sources: tuple[Source, ...],
    roots: dict[str, Path],
    classes: Sequence[str],
    known: Mapping[str, pd.DataFrame],
    corrected: Path | None,
    withdrawn: Mapping[str, Withdrawal],
    progress: Progress,
) -> RawImages:
    words = {
        source.name: Words(source.labels, classes, source.setting("labels")) for source in sources
    }
    rows = pd.concat(
        [
            listing.listed(
                source, roots[source.name], words[source.name], known.get(source.name), progress
            )
            for source in sources
        ],
        ignore_index=True,
    )
    done = Corrected()
    if corrected is not None:
        done = corrections.apply(corrected, rows, words, roots, progress)
    listing.withdraw(rows, withdrawn)
    rows = listing.finished(rows)
    return RawImages(
        sources=sources,
        roots=roots,
        data_version=data_version(rows),
        unchanged=False,
        inventory=rows,
        corrected=done,
    )


def _earlier(
    layout: Layout, roots: Mapping[str, Path], progress: Progress
) -> tuple[str | None, dict[str, pd.DataFrame]]:
    """Version of the last inventory, and what it says of the files of sources that did not move."""
    images = load(layout)
    if images is None:
        if (layout.raw / INVENTORY_FILE).exists():
            progress(f"{layout.raw / INVENTORY_FILE} is broken: all files are read again")
        return None, {}
    rows = images.inventory[["source", *KNOWN]]
    names = [name for name, root in roots.items() if images.roots.get(name) == root]
    return images.data_version, {name: rows[rows["source"] == name] for name in names}


def _root(source: Source, data: Data, layout: Layout, progress: Progress) -> Path:
    if source.source == "kaggle":
        # Takes half a second, and most sources need no client.
        from cxr_assets.radiographs import kaggle

        assert source.dataset is not None  # Source checks it
        try:
            return folder.root(
                kaggle.fetch(source.dataset, layout.raw / "kaggle", progress), source
            )
        except kaggle.KaggleError as error:
            raise RawDataError(str(error)) from error
    if source.source == "synthetic":
        patients = source.synthetic_patients
        made = layout.raw / "synthetic" / f"{patients}-patients-seed-{data.seed}"
        progress(f"making synthetic images of {patients} patients per class in {made}")
        synthesis.make(made, patients, data.seed, progress)
        return folder.root(made, source)
    return _place(source)


def _place(source: Source) -> Path:
    if source.source == "table":
        return annotations.root(source)
    assert source.folder is not None  # Source checks it
    return folder.root(source.folder, source)


def _save(images: RawImages, layout: Layout) -> None:
    table = images.inventory.copy(deep=False)
    table.attrs = {
        "sources": [source.model_dump(mode="json") for source in images.sources],
        "roots": {name: str(root) for name, root in images.roots.items()},
        "data_version": images.data_version,
        "unchanged": images.unchanged,
        "corrected": asdict(images.corrected),
    }
    content = table.to_parquet(index=False, write_page_checksum=True)
    atomic.write_file(layout.raw / INVENTORY_FILE, content)


def load(layout: Layout) -> RawImages | None:
    """The inventory on disk; None if there is none, or if it is broken or in another format."""
    try:
        inventory = pd.read_parquet(layout.raw / INVENTORY_FILE, page_checksum_verification=True)
        if tuple(inventory.columns) != COLUMNS:
            return None
        if inventory.attrs["data_version"] != data_version(inventory):
            return None
        corrected = inventory.attrs["corrected"]
        return RawImages(
            sources=tuple(Source.model_validate(source) for source in inventory.attrs["sources"]),
            roots={name: Path(root) for name, root in inventory.attrs["roots"].items()},
            data_version=inventory.attrs["data_version"],
            unchanged=inventory.attrs["unchanged"],
            inventory=inventory,
            corrected=Corrected(corrected["images"], tuple(corrected["unmatched"])),
        )
    except (OSError, ValueError, KeyError):
        return None
