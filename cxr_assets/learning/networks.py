"""The two networks, with pretrained weights or from scratch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, ConvNextV2Config, Dinov2Config

from cxr_assets.experiment import Model, Probe
from cxr_assets.learning import base_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def convnext_config(model: Model, image_size: int, classes: Sequence[str]) -> dict[str, Any]:
    """transformers configuration of the main network.

    Raises:
        PretrainedError: see :func:`cxr_assets.learning.base_weights.config`.
    """
    if model.pretrained is not None:
        found = base_weights.config(ConvNextV2Config, model.pretrained, model.revision)
        found.update({**_labels(classes), "drop_path_rate": model.drop_path_rate})
        return dict(found.to_dict())
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
        PretrainedError: see :func:`cxr_assets.learning.base_weights.config`.
    """
    if probe.pretrained is not None:
        found = base_weights.config(Dinov2Config, probe.pretrained, probe.revision)
        found.update(_labels(classes))
        return dict(found.to_dict())
    config: dict[str, Any] = Dinov2Config(
        hidden_size=probe.hidden_size,
        num_hidden_layers=probe.num_hidden_layers,
        num_attention_heads=probe.num_attention_heads,
        patch_size=probe.patch_size,
        image_size=image_size,
        **_labels(classes),
    ).to_dict()
    return config


def build(config: dict[str, Any]) -> "PreTrainedModel":
    """Network with random weights, from its transformers configuration alone.

    Its weights are in ``channels_last`` format, which its blocks work in, except those that the
    images meet first: images are larger than what comes of them, and are not in that format.
    """
    # Here, because a plan needs configurations alone, and these take seconds to import.
    import torch
    from transformers import AutoModelForImageClassification
    from transformers.initialization import no_init_weights

    from cxr_assets.learning import depthwise, grn

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


def dinov2(probe: Probe, image_size: int, classes: Sequence[str]) -> "PreTrainedModel":
    """The probe's backbone with its pretrained weights, if it has any, else with random ones.

    Raises:
        PretrainedError: see :func:`cxr_assets.learning.base_weights.load`.
    """
    network = build(dinov2_config(probe, image_size, classes))
    if probe.pretrained is not None:
        base_weights.load(network, probe.pretrained, probe.revision)
    backbone: PreTrainedModel = network.dinov2
    return backbone


def _labels(classes: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(classes)),
        "label2id": {label: index for index, label in enumerate(classes)},
    }
