"""The two networks: from the hub, from a local directory in the hub's format, or from scratch."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    ConvNextV2Config,
    Dinov2Config,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.initialization import no_init_weights
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from cxr_assets.experiment import Model, Probe
from cxr_assets.learning import depthwise, grn
from cxr_serving.model.bundle import WEIGHTS_FILE
from cxr_serving.model.places import expanded

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


def convnext_config(model: Model, image_size: int, classes: Sequence[str]) -> dict[str, Any]:
    """transformers configuration of the main network.

    Raises:
        PretrainedError: see :func:`locate`.
    """
    if model.pretrained is not None:
        return _pretrained_config(
            ConvNextV2Config,
            model.pretrained,
            model.revision,
            classes,
            drop_path_rate=model.drop_path_rate,
        )
    config: dict[str, Any] = ConvNextV2Config(
        hidden_sizes=list(model.hidden_sizes),
        depths=list(model.depths),
        patch_size=model.patch_size,
        initializer_range=model.initializer_range,
        drop_path_rate=model.drop_path_rate,
        image_size=image_size,
        **_labels(classes),
    ).to_dict()
    return config


def dinov2_config(probe: Probe, image_size: int, classes: Sequence[str]) -> dict[str, Any]:
    """transformers configuration of the probe's network.

    Raises:
        PretrainedError: see :func:`locate`.
    """
    if probe.pretrained is not None:
        return _pretrained_config(Dinov2Config, probe.pretrained, probe.revision, classes)
    config: dict[str, Any] = Dinov2Config(
        hidden_size=probe.hidden_size,
        num_hidden_layers=probe.num_hidden_layers,
        num_attention_heads=probe.num_attention_heads,
        patch_size=probe.patch_size,
        image_size=image_size,
        **_labels(classes),
    ).to_dict()
    return config


def build(config: dict[str, Any]) -> PreTrainedModel:
    """Network with random weights, from its transformers configuration alone.

    Its weights are in ``channels_last`` format, which its blocks work in, except those that the
    images meet first: images are larger than what comes of them, and are not in that format.
    """
    settings = {key: value for key, value in config.items() if key != "model_type"}
    # Only once, below: transformers would initialise each nested network again.
    with no_init_weights():
        network: PreTrainedModel = AutoModelForImageClassification.from_config(
            AutoConfig.for_model(config["model_type"], **settings)
        )
    network.init_weights()
    grn.install(network)
    depthwise.install(network)
    network.to(memory_format=torch.channels_last)
    network.base_model.embeddings.to(memory_format=torch.contiguous_format)
    return network


def dinov2(probe: Probe, image_size: int, classes: Sequence[str]) -> PreTrainedModel:
    """The probe's backbone with its pretrained weights, if it has any, else with random ones.

    Raises:
        PretrainedError: see :func:`load_pretrained`.
    """
    network = build(dinov2_config(probe, image_size, classes))
    if probe.pretrained is not None:
        load_pretrained(network, probe.pretrained, probe.revision)
    backbone: PreTrainedModel = network.dinov2
    return backbone


def load_pretrained(network: PreTrainedModel, pretrained: str, revision: str | None) -> None:
    """Copy pretrained weights into ``network``; its classification head stays as it is.

    Raises:
        PretrainedError: the weights are of another architecture, or see :func:`locate`.
    """
    directory = locate(pretrained, revision)
    source, report = read_pretrained(directory, network.config)
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


def read_pretrained(
    directory: Path, config: PreTrainedConfig
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Read weights in the hub's format into a network of ``config``.

    Returns:
        The network, and the report of transformers: ``missing_keys``, ``unexpected_keys`` and
        ``mismatched_keys``, the names of parameters that do not fit.

    Raises:
        PretrainedError: the file of the weights is damaged.
    """
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
    is an error, see :func:`load_pretrained`.
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


def _pretrained_config(
    kind: type[PreTrainedConfig],
    pretrained: str,
    revision: str | None,
    classes: Sequence[str],
    **changes: Any,
) -> dict[str, Any]:
    directory = locate(pretrained, revision)
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise PretrainedError(
            f"{directory / CONFIG_FILE} is not the configuration of a network "
            f"({_first_line(error)}): {_ANEW}"
        ) from error
    if not isinstance(config, kind):
        raise PretrainedError(
            f"{directory} holds a network of type {config.model_type}, where one of type "
            f"{kind.model_type} is needed: name another directory or hub id"
        )
    config.update({**_labels(classes), **changes})
    return dict(config.to_dict())


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")


def _labels(classes: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(classes)),
        "label2id": {label: index for index, label in enumerate(classes)},
    }
