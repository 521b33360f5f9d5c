"""What an image must not hold, by the list of its files, and how large they are."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

_CHANGES_THE_USER = "changes the user who runs it"
# Of a distribution of Debian or of CUDA, with the platform before and the version after.
_COMPILERS = (
    r"([\w.]+-[\w.-]+-)?(c(89|99)(-gcc)?|gcc|g\+\+|c\+\+|cpp|cc|clang(\+\+)?|tcc|gfortran|f(77|95)"
    r"|gccgo|gnat|ld(\.(bfd|gold|lld|mold))?|as|nvcc|rustc|go)(-[\d.]+)?"
)
# What they start, which is a compiler without the program of its name, too.
_PASSES = r"(cc1(plus|obj)?|lto1|f951|go1|gnat1|collect2|as|ld)"
_SECRETS = (
    # Of the shell and of services.
    r"\.env(\.(?!example$|sample$|template$)[\w.-]+)?|\.netrc|\.pgpass|\.my\.cnf|\.htpasswd|\.vault-token"
    # Of package indexes and of version control.
    r"|pip\.conf|\.pypirc|\.npmrc|\.yarnrc\.yml|\.git-credentials|\.cargo/credentials(\.toml)?"
    # Of clouds and clusters.
    r"|\.aws/.*|\.azure/.*|\.config/gcloud/.*|application_default_credentials\.json|\.s3cfg|\.boto"
    r"|\.docker/config\.json|\.dockercfg|\.kube/config"
    # Of those that this project calls, and what docs/deploy.md has people write.
    r"|kaggle\.json|hf_token|huggingface/(stored_tokens|token)|postgres_(password|service)"
    r"|\.ssh/.*|id_(rsa|ecdsa|ed25519)"
)
# Packages have such names for code, and for the servers of their tests.
_SECRETS_BUT_OF_PACKAGES = (
    r"(?!.*/(site|dist)-packages/)(.*/)?(secrets/.*|[\w.-]+\.(key|p12|pfx|jks)|[\w.-]*key\.pem)"
)
_NAMES = {
    "compiles programs": re.compile(rf"(.*/)?(s?bin/{_COMPILERS}|lib(exec)?/gcc/.+/{_PASSES})"),
    "holds a secret": re.compile(rf"(.*/)?({_SECRETS})|{_SECRETS_BUT_OF_PACKAGES}"),
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
