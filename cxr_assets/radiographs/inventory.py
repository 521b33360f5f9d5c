"""The inventory: one row per file, with its hash, its image size and what its name says."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from cxr_assets.radiographs import naming
from cxr_serving.images import files
from cxr_serving.images.files import Found
from cxr_serving.model import preprocessing
from cxr_serving.model.preprocessing import ImageError

COLUMNS = (
    *("path", "split", "bytes", "mtime_ns", "sha256", "width", "height"),
    *("label", "patient", "problem"),
)


def inspect(root: Path, found: Iterable[Found], known: pd.DataFrame | None) -> pd.DataFrame:
    """Make the inventory of files. Of an image only the header is decoded.

    Args:
        root: folder that paths are relative to.
        found: the files, all below ``root``.
        known: earlier inventory of ``root``: a file with the size and time noted there is not read
            again.

    Returns:
        One row per file: ``path`` (posix, below ``root``), ``split`` (its first part), ``bytes``,
        ``mtime_ns``, ``sha256`` (None if the file cannot be read), ``width`` and ``height`` in
        pixels (0 without an image), ``label`` and ``patient`` (None if skipped; ``patient`` also if
        the name says none), ``problem``: None, or why the file is skipped, after ``corrupt:`` or
        ``unnamed:``.
    """
    rows = {} if known is None else {row["path"]: row for row in known.to_dict("records")}

    def row_of(file: Found) -> dict[str, Any]:
        path = PurePosixPath(file.path.relative_to(root).as_posix())
        if not files.is_utf8(str(path)):
            return _row_without_name(path)
        size, mtime_ns = stat(file.path)
        row = rows.get(str(path))
        if (
            row is None
            or row["width"] == 0  # no image at that time: newer code may read it
            or (row["bytes"], row["mtime_ns"]) != (size, mtime_ns)
        ):
            row = {"path": str(path), "split": path.parts[0], "bytes": size, "mtime_ns": mtime_ns}
            row |= _examine(file)
        return row | _interpret(path, row)

    with ThreadPoolExecutor() as pool:
        return pd.DataFrame(list(pool.map(row_of, found)), columns=list(COLUMNS))


def _row_without_name(path: PurePosixPath) -> dict[str, Any]:
    """The row of a file whose name is not UTF-8: neither tables nor logs can hold it."""
    return {
        **{"path": files.spelled(Path(path)), "split": path.parts[0], "bytes": 0, "mtime_ns": 0},
        **{"sha256": None, "width": 0, "height": 0, "label": None, "patient": None},
        "problem": "unnamed: the file name is not UTF-8, rename the file",
    }


def stat(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds; zeros if there is no such file."""
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
    """Label and patient from the file name, if the file holds an image."""
    if row["width"] == 0:
        return {"label": None, "patient": None}
    try:
        name = naming.parse(path)
    except naming.UnnamedImage as error:
        return {"label": None, "patient": None, "problem": f"unnamed: {error}"}
    return {"label": name.label, "patient": name.patient, "problem": None}


def data_version(inventory: pd.DataFrame) -> str:
    """sha256 over the sorted paths and hashes: independent of where the images are."""
    digest = hashlib.sha256()
    for path, sha256 in sorted(zip(inventory["path"], inventory["sha256"], strict=True)):
        digest.update(f"{path}\0{sha256}\n".encode())
    return digest.hexdigest()
