"""Processor seconds of one image at the sizes of ``full``: ``python -m benchmarks.scaling.units``.

Networks have the shapes of ConvNeXt V2 Tiny and DINOv2-small, with random weights, which are as
fast; inputs have 224 pixels, JPEG images 1330 x 970. One thread.
"""

import json
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks import images
from benchmarks.serving import models
from cxr_assets.experiment import compose
from cxr_assets.learning import networks
from cxr_assets.learning.backbone import embedder
from cxr_assets.radiographs.decoding import Decoder
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import Preprocessing

SIDE = 224
DECODED, PASSES, TRAINED = 40, 8, 4
REPEATS = 2


def measured() -> dict[str, float]:
    """Seconds by what is done to an image."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        return {
            "preparation": _preparation(root),
            "embedding": _embedding(root),
            "training": _training(),
            "pass": _pass(root),
        }


def _preparation(root: Path) -> float:
    images.make(root / "images", DECODED)
    files = sorted((root / "images").rglob("*.jpeg"))
    hashes = [sha256(file.read_bytes()).hexdigest() for file in files]
    with Decoder(SIDE) as decoder:

        def prepare() -> None:
            for number, (file, image) in enumerate(zip(files, hashes, strict=True)):
                assert decoder.write(file, image, root / f"{number}.png").pixels

        return _seconds(prepare) / DECODED


def _pass(root: Path) -> float:
    predictor = Predictor(models.publish(root / "data", models.TINY, 0), threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (PASSES, SIDE, SIDE), np.uint8)
    return _seconds(lambda: predictor.answer(pixels)) / PASSES


def _training() -> float:
    network = networks.build(models.TINY.to_dict()).train()
    pixels, labels = torch.rand(TRAINED, 3, SIDE, SIDE), torch.zeros(TRAINED, dtype=torch.int64)
    return _seconds(lambda: network(pixels, labels=labels).loss.backward()) / TRAINED


def _embedding(root: Path) -> float:
    probe = compose("full", ["probe.pretrained=null"]).probe
    network = networks.build(networks.dinov2_config(probe, SIDE, KAGGLE_CLASSES))
    embed = embedder(network.dinov2, Preprocessing(SIDE))
    files = [f"{number}.png" for number in range(PASSES)]
    return _seconds(lambda: list(embed(root, files))) / PASSES


def _seconds(work: Callable[[], object]) -> float:
    """Of the processors, at best."""
    taken = []
    for _ in range(1 + REPEATS):  # the first time warms up
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken[1:])


if __name__ == "__main__":
    print(json.dumps(measured()))
