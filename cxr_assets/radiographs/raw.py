"""Raw images: downloaded, synthetic or read in place, then verified and listed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from cxr_assets import experiment
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_assets.radiographs import kaggle, naming, synthesis
from cxr_assets.radiographs.inventory import data_version, inspect, stat
from cxr_assets.sources import Source
from cxr_serving.images import files
from cxr_serving.model import atomic
from cxr_serving.model.preprocessing import ImageError, Preprocessing

INVENTORY_FILE = "inventory.parquet"
_COLUMNS = (
    *("source", "path", "split", "bytes", "mtime_ns", "sha256", "width", "height", "bits"),
    *("label", "given_label", "patient", "site", "acquired", "view", "sex", "age", "problem"),
)
_HELP = "see docs/data.md, 'Your own data'"
_FOLDERS = ("NORMAL", "PNEUMONIA")
_NEEDED_SPLITS = ("train", "test")
_EXAMPLES = {
    "bacterial_pneumonia": "PNEUMONIA/person12_bacteria_47.jpeg",
    "normal": "NORMAL/IM-0115-0001.jpeg",
    "viral_pneumonia": "PNEUMONIA/person12_virus_9.jpeg",
}


class RawDataError(Exception):
    """There are no usable images; the message says what is missing, where, and what to do."""


@dataclass(frozen=True)
class RawImages:
    """Verified images and their inventory.

    Attributes:
        sources: where they come from.
        roots: by name of a source, the absolute directory that its paths are relative to.
        data_version: see :func:`cxr_assets.radiographs.inventory.data_version`.
        synthetic: whether they are synthetic images.
        unchanged: whether the previous inventory described the same content.
        inventory: one row per file, see :func:`cxr_assets.radiographs.inventory.inspect`.
    """

    sources: tuple[Source, ...]
    roots: dict[str, Path]
    data_version: str
    synthetic: bool
    unchanged: bool
    inventory: pd.DataFrame

    def locate(self, source: str, path: str) -> Path:
        """Where an image of the inventory lies."""
        return self.roots[source] / path


def collect(data: experiment.Data, layout: Layout, progress: Progress) -> RawImages:
    """Download, make or locate the images, verify them, and write their inventory.

    Only image headers are decoded. Files with the size and time of the last inventory are not read
    again.

    Args:
        data: where the images come from.
        layout: downloads, synthetic images and the inventory go to ``layout.raw``; ``data.folder``
            is never written to.
        progress: called with a line per stage.

    Raises:
        RawDataError: there are no images, or a split or a class has none.
    """
    layout.raw.mkdir(parents=True, exist_ok=True)
    with FileLock(layout.raw / ".lock"):
        root = _find_root(_source(data, layout, progress))
        previous = _load(layout)
        if previous is None and (layout.raw / INVENTORY_FILE).exists():
            progress(f"{layout.raw / INVENTORY_FILE} is broken: all files are read again")
        [source] = data.listed
        same = previous is not None and previous.roots == {source.name: root}
        known = previous.inventory if previous is not None and same else None
        splits = (root / split for split in naming.SPLITS)
        found = files.walk(split for split in splits if split.is_dir())
        progress(f"checking {len(found):,} files in {root}")
        inventory = _of_source(source.name, inspect(root, found, known))
        _require_images(root, inventory)
        version = data_version(inventory)
        images = RawImages(
            sources=(source,),
            roots={source.name: root},
            data_version=version,
            synthetic=data.source == "synthetic",
            unchanged=previous is not None and previous.data_version == version,
            inventory=inventory,
        )
        _save(images, layout)
    skipped = int(inventory["problem"].notna().sum())
    progress(
        f"{len(inventory) - skipped:,} images, {skipped:,} files skipped, "
        f"data version {version[:12]}{', unchanged' if images.unchanged else ''}"
    )
    return images


def read(layout: Layout) -> RawImages:
    """The images of the last :func:`collect`.

    Raises:
        RawDataError: it never ran, or the files have changed since.
    """
    images = _load(layout)
    if images is None:
        raise RawDataError(
            f"no intact {INVENTORY_FILE} in {layout.raw}: materialise raw_kaggle first"
        )
    for row in images.inventory.itertuples():
        path = images.locate(row.source, row.path)
        if stat(path) != (row.bytes, row.mtime_ns):
            raise RawDataError(
                f"{path} is missing or has changed since raw_kaggle checked it: "
                "materialise raw_kaggle again"
            )
    return images


def survey(folder: Path, progress: Progress) -> pd.DataFrame:
    """Inventory of a folder to evaluate a model on; splits and classes may be missing.

    If the folder has ``test/``, only that is listed, otherwise every ``NORMAL/`` and ``PNEUMONIA/``
    in it. Every image is decoded once, to find the broken ones.

    Args:
        folder: has the images, itself or in ``chest_xray/``; nothing is written there.
        progress: called with a line per stage.

    Returns:
        As :attr:`RawImages.inventory`, with paths below ``folder``.

    Raises:
        RawDataError: there is no readable image.
    """
    if not folder.is_dir():
        raise RawDataError(f"{folder.absolute()} is not a directory; {_HELP}")
    _require_utf8(folder.absolute())
    tops = [folder, folder / "chest_xray", folder / "chest_xray" / "chest_xray"]
    root = next((top / "test" for top in tops if (top / "test").is_dir()), folder)
    found = files.walk([root])
    progress(f"checking {len(found):,} files in {root}")
    inventory = inspect(folder, found, None)
    named = inventory.index[inventory["problem"].isna()]
    with ThreadPoolExecutor() as pool:
        problems = pool.map(_undecodable, (folder / inventory["path"][index] for index in named))
        for index, problem in zip(named, problems, strict=True):
            inventory.loc[index, "problem"] = problem
    if inventory["problem"].notna().all():
        first = f": {inventory['problem'].iloc[0]}" if len(inventory) else ""
        raise RawDataError(
            f"no image could be read in {root.absolute()}{first}. Expected NORMAL/ and PNEUMONIA/ "
            f"with names like {', '.join(_EXAMPLES.values())}; {_HELP}"
        )
    return inventory


def _undecodable(path: Path) -> str | None:
    try:
        Preprocessing(size=32).decode(path)
    except (OSError, ImageError) as error:
        return f"corrupt: {error}"
    return None


def _source(data: experiment.Data, layout: Layout, progress: Progress) -> Path:
    if data.source == "folder":
        if data.folder is None:
            raise RawDataError(f"data.source=folder needs data.folder; {_HELP}")
        return data.folder.expanduser()
    if data.source == "kaggle":
        if data.dataset is None:
            raise RawDataError("data.source=kaggle needs data.dataset, owner/name on Kaggle")
        try:
            return kaggle.fetch(data.dataset, layout.raw / "kaggle", progress)
        except kaggle.KaggleError as error:
            raise RawDataError(str(error)) from error
    root = layout.raw / "synthetic" / f"{data.synthetic_patients}-patients-seed-{data.seed}"
    progress(f"making synthetic images of {data.synthetic_patients} patients per class in {root}")
    synthesis.make(root, data.synthetic_patients, data.seed, progress)
    return root


def _find_root(folder: Path) -> Path:
    """The directory with train/ and test/: the folder, or chest_xray/ up to two levels below."""
    if not folder.is_dir():
        raise RawDataError(f"{folder.absolute()} is not a directory; {_HELP}")
    for root in (folder, folder / "chest_xray", folder / "chest_xray" / "chest_xray"):
        if any((root / split).is_dir() for split in _NEEDED_SPLITS):
            break
    else:
        raise RawDataError(
            f"no train/ and test/ in {folder.absolute()} or chest_xray/ in it; {_HELP}"
        )
    for split in _NEEDED_SPLITS:
        for name in _FOLDERS:
            if not (root / split / name).is_dir():
                raise RawDataError(
                    f"no {split}/{name}/ in {root.absolute()}: "
                    f"train/ and test/ need NORMAL/ and PNEUMONIA/ each; {_HELP}"
                )
    return _require_utf8(root.resolve())


def _require_utf8(folder: Path) -> Path:
    if not files.is_utf8(str(folder)):
        raise RawDataError(
            f"the name of the folder {files.spelled(folder)} is not UTF-8: rename it"
        )
    return folder


def _require_images(root: Path, inventory: pd.DataFrame) -> None:
    for split in _NEEDED_SPLITS:
        images = inventory[inventory["split"] == split]
        for label, example in _EXAMPLES.items():
            if (images["label"] == label).any():
                continue
            skipped = images[images["problem"].notna()]
            aside = (
                f" ({len(skipped):,} files are skipped, the first is {skipped['path'].iloc[0]}: "
                f"{skipped['problem'].iloc[0]})"
                if len(skipped)
                else ""
            )
            raise RawDataError(
                f"no {label} image could be read in {root / split}{aside}: "
                f"expected names like {example}; {_HELP}"
            )


def _of_source(name: str, inventory: pd.DataFrame) -> pd.DataFrame:
    table = inventory.assign(source=name, bits=8, given_label=inventory["label"], age=float("nan"))
    table["patient"] = (name + "/" + inventory["patient"]).where(inventory["patient"].notna(), None)
    for column in ("site", "acquired", "view", "sex"):
        table[column] = pd.Series(None, index=table.index, dtype=object)
    return table[list(_COLUMNS)]


def _save(images: RawImages, layout: Layout) -> None:
    table = images.inventory.copy(deep=False)
    table.attrs = {
        "sources": [source.model_dump(mode="json") for source in images.sources],
        "roots": {name: str(root) for name, root in images.roots.items()},
        "data_version": images.data_version,
        "synthetic": images.synthetic,
        "unchanged": images.unchanged,
    }
    content = table.to_parquet(index=False, write_page_checksum=True)
    atomic.write_file(layout.raw / INVENTORY_FILE, content)


def _load(layout: Layout) -> RawImages | None:
    """The inventory on disk; None if there is none, or if it is broken or in another format."""
    try:
        inventory = pd.read_parquet(layout.raw / INVENTORY_FILE, page_checksum_verification=True)
        if tuple(inventory.columns) != _COLUMNS:
            return None
        if inventory.attrs["data_version"] != data_version(inventory):
            return None
        return RawImages(
            sources=tuple(Source.model_validate(one) for one in inventory.attrs["sources"]),
            roots={name: Path(root) for name, root in inventory.attrs["roots"].items()},
            data_version=inventory.attrs["data_version"],
            synthetic=inventory.attrs["synthetic"],
            unchanged=inventory.attrs["unchanged"],
            inventory=inventory,
        )
    except (OSError, ValueError, KeyError):
        return None
