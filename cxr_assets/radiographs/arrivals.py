"""Whether folders and tables hold something new, without reading an image."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import BaseModel

from cxr_assets.radiographs import hive
from cxr_assets.sources import Data

# Images are copied one after the other, and a table is edited for a while.
SETTLED = timedelta(minutes=10)


class Seen(BaseModel):
    """What is known of the sources.

    Attributes:
        content: at the last retraining that this started, or when this began.
        changed: content that differs from it, if there is any.
        since: when that was seen first.
    """

    content: str
    changed: str | None = None
    since: datetime | None = None


def content(data: Data) -> str | None:
    """sha256 over name, size and time of each file of a folder or a table, and of corrections.

    An image that is replaced under an unchanged table is left to the weekly run.

    Returns:
        None where no source is a folder or a table.

    Raises:
        OSError: one of them is out of reach, or the folder of a table is empty.
    """
    folders = [source.folder for source in data.listed if source.source == "folder"]
    tables = [source.table for source in data.listed if source.source == "table"]
    if not folders and not tables:
        return None
    digest = hashlib.sha256()
    for found in (
        *map(_files, filter(None, folders)),
        *map(_parts, filter(None, [*tables, data.corrections])),
    ):
        for path, stat in found:
            digest.update(os.fsencode(path))
            digest.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def follow(seen: Seen | None, content: str, now: datetime) -> tuple[Seen, bool]:
    """Whether to retrain now: once for each change, when nothing has changed any more for a while.

    Args:
        seen: what this returned at the last call; None at first, which starts nothing.
        content: of the sources now.
        now: with a time zone.

    Returns:
        What is known from now on, and whether to retrain.
    """
    if seen is None or content == seen.content:
        return Seen(content=content), False
    if content != seen.changed or seen.since is None:
        return Seen(content=seen.content, changed=content, since=now), False
    if now - seen.since < SETTLED:
        return seen, False
    return Seen(content=content), True


def _parts(table: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in hive.files(table):
        yield path, path.stat()


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    def fail(error: OSError) -> None:
        raise error

    for directory, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        for name in sorted(names):
            with suppress(FileNotFoundError):  # deleted meanwhile, or a link to nothing
                path = Path(directory, name)
                yield path, path.stat()
