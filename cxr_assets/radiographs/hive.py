"""The files of a table: one, or those of a folder that Spark, DuckDB or pyarrow wrote like Hive."""

import errno
from pathlib import Path
from urllib.parse import unquote

from cxr_serving.images.files import walk

# How names of files and folders start that are no data: _SUCCESS, _metadata, .part-0.parquet.crc.
ASIDE = (".", "_")
# What the name of a folder says where a row has no value.
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def files(place: Path) -> list[Path]:
    """The files of a table, sorted by path: the order does not depend on the file system.

    Args:
        place: a file, or a folder. In that all files count, at any depth, unless a name on the way
            starts with one of :data:`ASIDE`.

    Raises:
        OSError: the folder has no such file, or one of them cannot be read.
    """
    if not place.is_dir():
        return [place]
    found = [
        file
        for file in walk([place])
        if not any(name.startswith(ASIDE) for name in file.path.relative_to(place).parts)
    ]
    for file in found:
        if file.problem is not None:
            raise OSError(errno.EIO, file.problem, str(file.path))
    if not found:
        raise FileNotFoundError(errno.ENOENT, "there is no CSV or Parquet file in it", str(place))
    return [file.path for file in found]


def columns(file: Path, place: Path) -> dict[str, str]:
    """What the folders between a table and one of its files say, as ``column=value``."""
    pairs = [name.partition("=") for name in file.relative_to(place).parts[:-1] if "=" in name]
    return {unquote(name): "" if value == _NO_VALUE else unquote(value) for name, _, value in pairs}
