"""Raw images: fetched, made or referenced, then verified and listed in an inventory."""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from filelock import FileLock

from cxr_assets import experiment
from cxr_assets.layout import Layout
from cxr_assets.radiographs import kaggle, naming, synthesis
from cxr_serving.images import files
from cxr_serving.images.files import Found
from cxr_serving.model import atomic, preprocessing
from cxr_serving.model.preprocessing import ImageError, Preprocessing

INVENTORY_FILE = "inventory.parquet"
COLUMNS = (
    *("path", "split", "bytes", "mtime_ns", "sha256", "width", "height"),
    *("label", "patient", "problem"),
)

_HELP = "see README, 'Your own data'"
_FOLDERS = ("NORMAL", "PNEUMONIA")
_NEEDED_SPLITS = ("train", "test")
_EXAMPLES = {
    "bacterial_pneumonia": "PNEUMONIA/person12_bacteria_47.jpeg",
    "normal": "NORMAL/IM-0115-0001.jpeg",
    "viral_pneumonia": "PNEUMONIA/person12_virus_9.jpeg",
}


class RawDataError(Exception):
    """There are no images; the message names what is missing, where, and the remedy."""


@dataclass(frozen=True)
class RawImages:
    """Verified images, where they lie.

    Attributes:
        root: absolute directory with ``train/`` and ``test/``; ``val/`` is optional.
        data_version: sha256 over the sorted paths and hashes; the same wherever the images lie.
        synthetic: whether they are synthesis.
        unchanged: whether the inventory before this one described the same content.
        inventory: a row for every file: ``path`` (posix, below the root), ``split``, ``bytes``,
            ``mtime_ns``, ``sha256`` (None where the file cannot be read), ``width`` and ``height``
            in pixels (0 where there is no image), ``label`` and ``patient`` (None where skipped;
            ``patient`` also where the name says none), ``problem``: None, or why the file is
            skipped, after ``corrupt:`` or ``unnamed:``.
    """

    root: Path
    data_version: str
    synthetic: bool
    unchanged: bool
    inventory: pd.DataFrame


def collect(data: experiment.Data, layout: Layout, progress: Callable[[str], None]) -> RawImages:
    """Fetch, make or reference the images, verify them, and leave the inventory in ``layout.raw``.

    Only headers are decoded here. Files whose size and time are as in the last inventory are not
    read again.

    Args:
        data: says where the images come from.
        layout: where downloads, synthetic images and inventory go; a referenced folder is never
            written to.
        progress: is told what goes on.

    Raises:
        RawDataError: the images cannot be had, or a split or a class has none.
    """
    layout.raw.mkdir(parents=True, exist_ok=True)
    with FileLock(layout.raw / ".lock"):
        root = _find_root(_source(data, layout, progress))
        previous = _load(layout)
        if previous is None and (layout.raw / INVENTORY_FILE).exists():
            progress(f"{layout.raw / INVENTORY_FILE} is not whole: all files are read again")
        known = previous.inventory if previous is not None and previous.root == root else None
        splits = (root / split for split in naming.SPLITS)
        found = files.walk(split for split in splits if split.is_dir())
        progress(f"checking {len(found):,} files in {root}")
        inventory = _inspect(root, found, known)
        _require_images(root, inventory)
        version = _data_version(inventory)
        images = RawImages(
            root=root,
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
    """The images that the last :func:`collect` left behind.

    Raises:
        RawDataError: it never ran, or the files are no longer as it saw them.
    """
    images = _load(layout)
    if images is None:
        raise RawDataError(
            f"no whole {INVENTORY_FILE} in {layout.raw}: materialise raw_kaggle first"
        )
    for row in images.inventory.itertuples():
        if _stat(images.root / row.path) != (row.bytes, row.mtime_ns):
            raise RawDataError(
                f"{images.root / row.path} is missing or has changed since raw_kaggle checked it: "
                "materialise raw_kaggle again"
            )
    return images


def survey(folder: Path, progress: Callable[[str], None]) -> pd.DataFrame:
    """Inventory of any folder in this layout, to evaluate images of: splits and classes may lack.

    Of a folder with ``test/`` only that is listed, else every ``NORMAL/`` and ``PNEUMONIA/`` in it.
    Every image is decoded once, so that the broken ones are known.

    Args:
        folder: it, or ``chest_xray/`` in it, holds the images; nothing is written there.
        progress: is told what goes on.

    Returns:
        As :attr:`RawImages.inventory`, with paths below ``folder``.

    Raises:
        RawDataError: there is no image.
    """
    if not folder.is_dir():
        raise RawDataError(f"{folder.absolute()} is not a directory; {_HELP}")
    _require_utf8(folder.absolute())
    tops = [folder, folder / "chest_xray", folder / "chest_xray" / "chest_xray"]
    root = next((top / "test" for top in tops if (top / "test").is_dir()), folder)
    found = files.walk([root])
    progress(f"checking {len(found):,} files in {root}")
    inventory = _inspect(folder, found, None)
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


def _source(data: experiment.Data, layout: Layout, progress: Callable[[str], None]) -> Path:
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
    progress(f"making synthetic images of {data.synthetic_patients} patients a class in {root}")
    synthesis.make(root, data.synthetic_patients, data.seed, progress)
    return root


def _find_root(folder: Path) -> Path:
    """The directory with train/ and test/: the folder, or chest_xray/ one or two levels below."""
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


def _inspect(root: Path, found: Iterable[Found], known: pd.DataFrame | None) -> pd.DataFrame:
    rows = {} if known is None else {row["path"]: row for row in known.to_dict("records")}

    def inspect(file: Found) -> dict[str, Any]:
        path = PurePosixPath(file.path.relative_to(root).as_posix())
        if not files.is_utf8(str(path)):
            return _unspeakable(path)
        size, mtime_ns = _stat(file.path)
        row = rows.get(str(path))
        if (
            row is None
            or row["width"] == 0  # no image then: it may be one to the code of today
            or (row["bytes"], row["mtime_ns"]) != (size, mtime_ns)
        ):
            row = {"path": str(path), "split": path.parts[0], "bytes": size, "mtime_ns": mtime_ns}
            row |= _examine(file)
        return row | _interpret(path, row)

    with ThreadPoolExecutor() as pool:
        return pd.DataFrame(list(pool.map(inspect, found)), columns=list(COLUMNS))


def _unspeakable(path: PurePosixPath) -> dict[str, Any]:
    """The row of a file that neither tables nor logs can name as it is."""
    return {
        **{"path": files.spelled(Path(path)), "split": path.parts[0], "bytes": 0, "mtime_ns": 0},
        **{"sha256": None, "width": 0, "height": 0, "label": None, "patient": None},
        "problem": "unnamed: the file name is not UTF-8, rename the file",
    }


def _stat(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _examine(file: Found) -> dict[str, Any]:
    """Hash a file and read the header of the image in it."""
    row: dict[str, Any] = {"sha256": None, "width": 0, "height": 0, "problem": None}
    if file.problem is not None:
        return row | {"problem": f"corrupt: {file.problem}"}
    try:
        content = file.path.read_bytes()
    except OSError as error:
        return row | {"problem": f"corrupt: the file cannot be read: {error.strerror}"}
    row["sha256"] = hashlib.sha256(content).hexdigest()
    try:
        header = preprocessing.header(content)
    except ImageError as error:
        return row | {"problem": f"corrupt: {error}"}
    return row | {"width": header.width, "height": header.height}


def _interpret(path: PurePosixPath, row: dict[str, Any]) -> dict[str, Any]:
    """What the name says, unless there is no image to name."""
    if row["width"] == 0:
        return {"label": None, "patient": None}
    try:
        name = naming.parse(path)
    except naming.UnnamedImage as error:
        return {"label": None, "patient": None, "problem": f"unnamed: {error}"}
    return {"label": name.label, "patient": name.patient, "problem": None}


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


def _data_version(inventory: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for path, sha256 in sorted(zip(inventory["path"], inventory["sha256"], strict=True)):
        digest.update(f"{path}\0{sha256}\n".encode())
    return digest.hexdigest()


def _save(images: RawImages, layout: Layout) -> None:
    table = images.inventory.copy(deep=False)
    table.attrs = {
        "root": str(images.root),
        "data_version": images.data_version,
        "synthetic": images.synthetic,
        "unchanged": images.unchanged,
    }
    content = table.to_parquet(index=False, write_page_checksum=True)
    atomic.write_file(layout.raw / INVENTORY_FILE, content)


def _load(layout: Layout) -> RawImages | None:
    """The inventory on disk; None where there is none, a broken one, or one of another format."""
    try:
        inventory = pd.read_parquet(layout.raw / INVENTORY_FILE, page_checksum_verification=True)
        if tuple(inventory.columns) != COLUMNS:
            return None
        if inventory.attrs["data_version"] != _data_version(inventory):
            return None
        return RawImages(
            root=Path(inventory.attrs["root"]),
            data_version=inventory.attrs["data_version"],
            synthetic=inventory.attrs["synthetic"],
            unchanged=inventory.attrs["unchanged"],
            inventory=inventory,
        )
    except (OSError, ValueError, KeyError):
        return None
