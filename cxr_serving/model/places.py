"""Paths as a user writes them."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def expanded(path: str | Path) -> Path:
    """With the home directory for ``~`` or ``~user`` at the start, which a shell leaves in quotes.

    That of a user whom nobody knows stays as it is.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser() raises for an unknown user


Place = Annotated[Path, AfterValidator(expanded)]
"""A path among settings."""
