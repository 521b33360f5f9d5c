"""Pretrained weights: from the hub, or from a local directory in the hub's format."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from cxr_serving.model.bundle import WEIGHTS_FILE
from cxr_serving.model.places import expanded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG_FILE = "config.json"

_ANEW = (
    "save the network there again (save_pretrained); if it comes from the hub, delete the "
    "directory, and the next run downloads it"
)


class PretrainedError(Exception):
    """Pretrained weights are missing or do not fit; the message says what to do."""


class UnreachableError(PretrainedError):
    """The hub does not answer, or is busy: another attempt may help."""


def locate(pretrained: str, revision: str | None) -> Path:
    """Directory with ``config.json`` and ``model.safetensors``, downloaded from the hub if needed.

    Args:
        pretrained: hub id (``facebook/dinov2-small``) or local directory in the hub's format.
        revision: commit of the hub repository.

    Raises:
        UnreachableError: the hub cannot be reached or is busy.
        PretrainedError: neither a directory nor a repository, or files are missing.
    """
    directory = expanded(pretrained)
    if not directory.is_dir():
        if pretrained.startswith((".", "/", "~")) or pretrained.count("/") != 1:
            raise PretrainedError(
                f"pretrained={pretrained} is neither a directory nor a hub id such as "
                "facebook/dinov2-small"
            )
        directory = _download(pretrained, revision)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise PretrainedError(
                f"{directory} has no {name}: save the weights there in the hub's format "
                "(save_pretrained); pickled weights are not loaded"
            )
    return directory


def _download(repository: str, revision: str | None) -> Path:
    files = [CONFIG_FILE, WEIGHTS_FILE]
    with suppress(LocalEntryNotFoundError):  # a pinned commit never changes
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=files, local_files_only=True
            )
        )
    try:
        # Fail fast: the hub client tries an unreachable host for half a minute.
        requests.head(constants.ENDPOINT, timeout=10)
        return Path(snapshot_download(repository, revision=revision, allow_patterns=files))
    except RepositoryNotFoundError as error:
        raise PretrainedError(
            f"{constants.ENDPOINT} has no repository {repository} that this account can read"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise (UnreachableError if _is_temporary(error) else PretrainedError)(
            f"{repository} could not be downloaded from {constants.ENDPOINT} ({error}). "
            "Without the hub: set model.pretrained and probe.pretrained to local directories in "
            "the hub's format, or run experiment=demo or experiment=scratch"
        ) from error


def _is_temporary(error: Exception) -> bool:
    """Whether the hub does not answer or is busy; a full disk is neither."""
    response = getattr(error, "response", None)
    if response is None:
        return isinstance(error, LocalEntryNotFoundError | requests.RequestException)
    return response.status_code in (408, 429) or response.status_code >= 500


def identity(pretrained: str | None, revision: str | None) -> str | None:
    """Identity of the base weights, independent of their location: part of the fingerprint.

    Returns:
        ``<hub id>@<revision>``; ``sha256:<digest>`` for a local directory; None when from scratch.
    """
    if pretrained is None:
        return None
    if not expanded(pretrained).is_dir():
        return f"{pretrained}@{revision}"
    digest = hashlib.sha256()
    directory = locate(pretrained, revision)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        digest.update((directory / name).read_bytes())
    return f"sha256:{digest.hexdigest()}"


def config(kind: type[PreTrainedConfig], pretrained: str, revision: str | None) -> PreTrainedConfig:
    """Configuration of pretrained weights.

    Args:
        kind: of network that they must be of.
        pretrained: see :func:`locate`.
        revision: see :func:`locate`.

    Raises:
        PretrainedError: it is damaged or of another kind, or see :func:`locate`.
    """
    directory = locate(pretrained, revision)
    try:
        found = AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise PretrainedError(
            f"{directory / CONFIG_FILE} is not the configuration of a network "
            f"({_first_line(error)}): {_ANEW}"
        ) from error
    if not isinstance(found, kind):
        raise PretrainedError(
            f"{directory} holds a network of type {found.model_type}, where one of type "
            f"{kind.model_type} is needed: name another directory or hub id"
        )
    return found


def load(network: "PreTrainedModel", pretrained: str, revision: str | None) -> None:
    """Copy pretrained weights into ``network``; its classification head stays as it is.

    Raises:
        PretrainedError: the weights are of another architecture, or see :func:`locate`.
    """
    directory = locate(pretrained, revision)
    source, report = read(directory, network.config)
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    foreign = sorted(key for key in absent if not key.startswith("classifier."))
    if foreign:
        raise PretrainedError(
            f"the weights in {directory} do not fit {type(network).__name__}: "
            f"{len(foreign)} parameters are missing or of another shape, such as {foreign[0]}"
        )
    state = {
        key: value
        for key, value in source.state_dict().items()
        if not key.startswith("classifier.")
    }
    network.load_state_dict(state, strict=False)


def read(directory: Path, config: PreTrainedConfig) -> tuple["PreTrainedModel", dict[str, Any]]:
    """Read weights in the hub's format into a network of ``config``.

    Returns:
        The network, and the report of transformers: ``missing_keys``, ``unexpected_keys`` and
        ``mismatched_keys``, the names of parameters that do not fit.

    Raises:
        PretrainedError: the file of the weights is damaged.
    """
    # Here, because a plan needs configurations alone, and this takes a second to import.
    from transformers import AutoModelForImageClassification

    try:
        with _quietly():
            source, report = AutoModelForImageClassification.from_pretrained(
                directory,
                config=config,
                ignore_mismatched_sizes=True,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise PretrainedError(
            f"{directory / WEIGHTS_FILE} is damaged ({_first_line(error)}): {_ANEW}"
        ) from error
    return source, report


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide what transformers prints about loading: a bar, and a table of missing weights.

    Loading takes milliseconds, and a backbone has no head for our classes. Any other missing weight
    is an error, see :func:`load`.
    """
    logger = logging.getLogger("transformers.modeling_utils")
    shown = is_progress_bar_enabled()

    def other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(other)
    disable_progress_bar()
    try:
        yield
    finally:
        logger.removeFilter(other)
        if shown:
            enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")
