"""The inventory: one row per file or table row, with hash and size of its image and its label."""

import errno
import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path
from stat import S_ISREG

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from cxr_assets.radiographs.threads import in_order
from cxr_serving.images.dicom import DicomUnavailable
from cxr_serving.images.reader import ImageReader
from cxr_serving.model.preprocessing import ImageError

# Columns that come from the file.
_FILE = ("bytes", "mtime_ns", "sha256", "width", "height", "bits")
COLUMNS = (
    *("source", "path", "split", *_FILE, "label", "given_label", "patient", "site", "acquired"),
    *("view", "sex", "age", "problem"),
)
# Columns that tell whether a file is as it was, and then need not be read.
KNOWN = ("path", *_FILE)
# Columns that the data version covers: the hash, not size and time; of a problem, its kind.
_VERSIONED = (
    *("source", "path", "sha256", "split", "label", "given_label", "patient", "site", "acquired"),
    *("view", "sex", "age"),
)
# Rows whose text is in memory at a time.
_BATCH = 4096
# Seconds until a progress bar is shown.
_PATIENCE = 1.0
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class RawDataError(Exception):
    """There are no usable images; the message says what is missing, where, and what to do."""


def examine(rows: pd.DataFrame, root: Path, known: pd.DataFrame | None) -> pd.DataFrame:
    """Add what the files say. Of an image only the header is read, and that of DICOM in a sandbox.

    Args:
        rows: of one source: ``path``, below ``root`` or absolute, and ``problem``. Files of rows
            with a problem are not opened. A path may stand in several rows.
        root: folder that paths are relative to.
        known: :data:`KNOWN` of an earlier inventory of the same source and root: a file with the
            size and time noted there is not read again.

    Returns:
        ``rows`` with ``bytes``, ``mtime_ns``, ``sha256`` (None if the file was not read), ``width``
        and ``height`` in pixels (0 without an image), ``bits`` per sample, and a ``problem`` that
        starts with ``missing:`` or ``corrupt:`` where there is no image.

    Raises:
        RawDataError: the process that reads DICOM does not start.
    """
    paths = pd.Index(rows["path"].unique())
    files = pd.DataFrame([stat(root, path) for path in paths], index=paths, columns=list(_FILE[:2]))
    files = _recall(files, known)
    unread = paths[files["sha256"].isna() & paths.isin(rows.loc[rows["problem"].isna(), "path"])]
    exists = files.loc[unread, "mtime_ns"] > 0
    here, absent = unread[exists], unread[~exists]
    with closing(ImageReader()) as reader, ThreadPoolExecutor() as pool:

        def one(path: str) -> tuple[str | None, int, int, int, str | None]:
            return _read(root, path, reader)

        # Why a file is absent is found without reading it: threads would only cost time.
        reading = chain(in_order(pool, one, here), map(one, absent))
        try:
            # In a terminal alone, and where it takes long.
            read = list(
                tqdm(reading, total=len(unread), unit=" files", delay=_PATIENCE, disable=None)
            )
        except DicomUnavailable as error:
            raise RawDataError(f"the images in {root} cannot be listed: {error}") from error
    found = pd.DataFrame(read, index=here.append(absent), columns=[*_FILE[2:], "problem"])
    files.loc[found.index, list(_FILE[2:])] = found[list(_FILE[2:])]
    problem = rows["path"].map(found["problem"].dropna())
    joined = rows.drop(columns="problem").join(files, on="path")
    joined["problem"] = rows["problem"].where(rows["problem"].notna(), problem)
    for name in ("bytes", "mtime_ns", "width", "height", "bits"):
        joined[name] = joined[name].astype("int64")
    return joined


def stat(root: Path, path: str) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds; zeros if there is no such file."""
    try:
        status = Path(root, path).stat()
    except (OSError, ValueError):
        return 0, 0
    return (status.st_size, status.st_mtime_ns) if S_ISREG(status.st_mode) else (0, 0)


def _recall(files: pd.DataFrame, known: pd.DataFrame | None) -> pd.DataFrame:
    """Size and hash of the images that are as they were; those of other files are empty."""
    if known is None:
        known = pd.DataFrame(columns=list(KNOWN))
    # A file that held no image at that time is read again: newer code may read it.
    images = known[known["width"] > 0].drop_duplicates("path").set_index("path")
    before = images.reindex(files.index)
    same = (files == before[list(files)]).all(axis=1)
    unchanged = before[list(_FILE[2:])].where(same)
    sizes = ["width", "height", "bits"]
    unchanged[sizes] = unchanged[sizes].astype("float64").fillna(0)
    return files.join(unchanged)


def _read(
    root: Path, path: str, reader: ImageReader
) -> tuple[str | None, int, int, int, str | None]:
    """Hash, width, height and bits of an image, or why there is none."""
    full = Path(root, path)
    try:
        if not S_ISREG(full.stat().st_mode):  # opening a pipe would wait for ever
            return None, 0, 0, 0, "corrupt: it is a folder, a pipe, a socket or a device"
        content = full.read_bytes()
    except OSError as error:
        kind = "missing" if error.errno in _NO_FILE else "corrupt"
        return None, 0, 0, 0, f"{kind}: the file cannot be read: {error.strerror}"
    except ValueError:  # a path that no file can have
        return None, 0, 0, 0, "missing: the path holds a NUL byte"
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        return sha256, *reader.header(content), None
    except DicomUnavailable:
        raise
    except ImageError as error:
        return sha256, 0, 0, 0, f"corrupt: {error}"


def data_version(inventory: pd.DataFrame) -> str:
    """sha256 over the sorted rows: independent of where the images are, and of the rows' order."""
    kind = inventory["problem"].map(lambda problem: problem.partition(":")[0], na_action="ignore")
    columns = {**{name: inventory[name] for name in _VERSIONED}, "problem": kind}
    # As Python would sort and join them, but without a string and a tuple for every row at once.
    texts = pa.table({name: _texts(column) for name, column in columns.items()})
    order = pc.sort_indices(texts, sort_keys=[(name, "ascending") for name in columns])
    digest = hashlib.sha256()
    for start in range(0, len(order), _BATCH):
        rows = texts.take(order[start : start + _BATCH])
        for row in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            digest.update(("\0".join(row) + "\n").encode())
    return digest.hexdigest()


def _texts(column: pd.Series) -> pa.Array:
    texts = column if column.dtype == object else column.map(str, na_action="ignore").astype(object)
    return pa.array(texts, pa.large_string(), from_pandas=True).fill_null("")
