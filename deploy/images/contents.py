"""What an image must not hold, by the list of its files, and how large they are."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

_CHANGES_THE_USER = "changes the user who runs it"
_NAMES = {
    "compiles programs": re.compile(
        r"(.*/)?s?bin/([\w.]+-[\w.-]+-)?(gcc|g\+\+|c\+\+|cpp|cc|clang(\+\+)?|tcc|ld(\.(bfd|gold|lld))?|as|nvcc|rustc|go)(-[\d.]+)?"
    ),
    "holds a secret": re.compile(
        r"(.*/)?(\.env|\.netrc|\.pgpass|\.pypirc|\.git-credentials|kaggle\.json|hf_token|\.ssh/.*"
        r"|\.aws/.*|\.docker/config\.json|\.kube/config|huggingface/token|id_(rsa|ecdsa|ed25519)"
        r"|postgres_(password|service)|pip\.conf)"
    ),
}


def faults(root: Path) -> Iterator[str]:
    """Files that an image must not hold, each with the reason.

    Args:
        root: of the image's files.

    Yields:
        ``PLACE: REASON``, the place as it is in the image.
    """
    for file in _files(root):
        place = str(file.relative_to(root))
        if file.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID):
            yield f"/{place}: {_CHANGES_THE_USER}"
        for reason, names in _NAMES.items():
            if names.fullmatch(place):
                yield f"/{place}: {reason}"


def size(root: Path) -> int:
    """Bytes of all files, each link to one counted once."""
    found = (file.lstat() for file in _files(root))
    return sum({(status.st_dev, status.st_ino): status.st_size for status in found}.values())


def _files(root: Path) -> Iterator[Path]:
    """All that is no folder."""
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name) for name in names)
