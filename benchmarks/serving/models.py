"""Bundles with random weights, whose answers differ from image to image and from seed to seed."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification
from transformers.utils.logging import disable_progress_bar

from cxr_assets.learning import onnx
from cxr_assets.learning.gate import AXES
from cxr_assets.learning.reference import Saved
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_serving.http.settings import ASSET
from cxr_serving.model import bundle, descriptor, store
from cxr_serving.model.bundle import INT8_FILE, BundleRecord, Int8
from cxr_serving.model.distribution import Distribution
from cxr_serving.model.gate import CHECKS, Gate, Likeness
from cxr_serving.model.preprocessing import Preprocessing
from cxr_serving.model.reference import INT8_TOLERANCE

disable_progress_bar()

# ConvNeXt V2 Tiny is what the preset `full` trains and what is timed; where only the service's
# conduct counts, a network that costs nothing shows it sooner.
TINY = ConvNextV2Config(hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3], image_size=224)
SMALL = ConvNextV2Config(hidden_sizes=[4, 4, 8, 8], depths=[1, 1, 1, 1], image_size=64)

# With the usual 0.02, and the zeros that GRN begins with, every image gets the same answer.
_STD = 0.08


def publish(
    data_root: Path,
    config: ConvNextV2Config,
    seed: int,
    finish: Callable[[Path], object] = lambda directory: None,
    point: bool = True,
) -> Path:
    """Publish a network with random weights, with all that the export of a training adds.

    Args:
        data_root: of the service.
        config: shape of the network.
        seed: of the weights; gives the fingerprint.
        finish: changes the files before they are hashed.
        point: whether ``latest.json`` names it.

    Returns:
        The bundle's directory.
    """
    fingerprint = f"{seed:08x}".ljust(64, "0")
    now = datetime.now(UTC)
    record = BundleRecord(
        asset=ASSET,
        version=bundle.new_version(fingerprint, now),
        fingerprint=fingerprint,
        classes=KAGGLE_CLASSES,
        input_size=config.image_size,
        created_at=now,
        data_version="none",
        code_version="none",
        seed=seed,
        pretrained=None,
        synthetic=True,
        validation={},
    )

    def write(directory: Path) -> BundleRecord:
        _network(config, seed).save_pretrained(directory)
        Preprocessing(config.image_size).write(directory)
        expected = Saved(directory, record.flip_averaging).reference()
        expected.write(directory)
        Distribution.of(expected.images, expected.probabilities).write(directory)
        _gate(config.hidden_sizes[-1]).write(directory)
        onnx.write(directory, record.flip_averaging)
        onnx.quantise(directory)
        difference = expected.difference(onnx.predict(directory / INT8_FILE, expected.images))
        # Random weights have no F1 to lose.
        int8 = Int8(
            difference=difference,
            macro_f1=0,
            macro_f1_drop=0,
            accepted=difference <= INT8_TOLERANCE,
        )
        if not int8.accepted:
            (directory / INT8_FILE).unlink()
        finish(directory)
        return record.model_copy(update={"int8": int8})

    return store.publish(store.asset_directory(data_root, ASSET), record, write, point)


def _gate(features: int) -> Gate:
    """A gate that costs what a fitted one does, and accepts every image."""
    zero = np.zeros(descriptor.LENGTH, np.float32)
    return Gate(
        chest=zero,
        side=zero,
        picture=Likeness.to_anything(descriptor.LENGTH, axes=AXES),
        features=Likeness.to_anything(features, len(KAGGLE_CLASSES), min(AXES, features // 2)),
        thresholds=np.full(len(CHECKS), np.inf, np.float32),
    )


def _network(config: ConvNextV2Config, seed: int) -> ConvNextV2ForImageClassification:
    torch.manual_seed(seed)
    config.initializer_range = _STD
    config.id2label = dict(enumerate(KAGGLE_CLASSES))
    config.label2id = {name: index for index, name in enumerate(KAGGLE_CLASSES)}
    network = ConvNextV2ForImageClassification(config)
    for name, parameter in network.named_parameters():
        if ".grn." in name:
            torch.nn.init.normal_(parameter, std=_STD)
    return network
