"""Paths as a user writes them, and the data root, which may be in a bucket."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from cxr_serving.model import extras

# A bucket's name, then a prefix without empty, `.` or `..` parts.
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/(?!\.{1,2}(/|$))[^/\s]+)*")


def expanded(path: str | Path) -> Path:
    """With the home directory for ``~`` or ``~user`` at the start, which a shell leaves in quotes.

    That of a user whom nobody knows stays as it is.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser() raises for an unknown user


Place = Annotated[Path, AfterValidator(expanded)]
"""A path among settings."""


def root(value: str | Path) -> Path | str:
    """The data root that a user names: a folder, or the URL of a bucket, as text.

    Raises:
        ValueError: it is another kind of URL, or the client of buckets is not installed.
    """
    if isinstance(value, Path) or "://" not in value:
        return expanded(value)
    url = value.rstrip("/")
    if not _BUCKET.fullmatch(url):
        raise ValueError("neither a folder nor s3://bucket/prefix, the only kind of URL here")
    if missing := extras.client_missing():
        raise ValueError(f"{url} {missing}")
    return url


Root = Annotated[Path | str, BeforeValidator(root)]
"""The data root among settings: a folder, or the URL of a bucket as text."""


def default_cache() -> Path:
    """Where a local copy of a bucket goes unless ``CXR_CACHE`` says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")) / "cxr"


def folder(root: Path | str, cache: Path) -> Path:
    """The data root on this machine: itself, or the place of its local copy below ``cache``."""
    return root if isinstance(root, Path) else cache / root.removeprefix("s3://")
