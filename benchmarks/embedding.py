"""Embedding against eager torch: ``python -m benchmarks.embedding [--weights DIRECTORY]``."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from benchmarks.measure import SIDE, Comparison, fastest, interleaved, seconds, show
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning import base_weights, networks
from cxr_assets.learning.backbone import embedder
from cxr_assets.radiographs import dataset, raw
from cxr_assets.radiographs.preparation import prepare
from cxr_serving.model import processors
from cxr_serving.model.preprocessing import Preprocessing

SIZE = 224
BATCH = 32
BAR = 1.8


@torch.inference_mode()
def batched(backbone: PreTrainedModel, directory: Path, files: list[str]) -> None:
    """Eager torch, in batches."""
    normalise = Preprocessing(SIZE).normalise
    for images in dataset.batches(directory, files, SIZE, BATCH):
        backbone(pixel_values=normalise(torch.from_numpy(images))).last_hidden_state[:, 0].numpy()


@torch.inference_mode()
def naive(backbone: PreTrainedModel, directory: Path, files: list[str]) -> None:
    """Eager torch, in a loop over the images."""
    normalise = Preprocessing(SIZE).normalise
    for file in files:
        pixels = normalise(torch.from_numpy(np.array(Image.open(directory / file))[np.newaxis]))
        backbone(pixel_values=pixels).last_hidden_state[0, 0].numpy()


def operations(backbone: PreTrainedModel) -> float:
    """Additions and multiplications of matrix products for one image, by the whole network."""
    config, tokens = backbone.config, 1 + (SIZE // backbone.config.patch_size) ** 2
    width, inner = config.hidden_size, config.mlp_ratio * config.hidden_size
    layer = tokens * width * (4 * width + 2 * inner) + 2 * tokens**2 * width
    patches = (tokens - 1) * config.num_channels * config.patch_size**2 * width
    return float(2 * (config.num_hidden_layers * layer + patches))


def main() -> None:
    """Print the table, and what the processor could do at most."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--weights", help="of DINOv2-small; random by default, which are as fast")
    arguments = parser.parse_args()
    torch.set_num_threads(processors.count())
    patients = f"data.synthetic_patients={max(arguments.images, 8)}"
    given = ["probe=dinov2_small", f"probe.pretrained={arguments.weights or 'null'}"]
    experiment = compose("demo", [*given, patients, f"data.image_size={SIZE}"])
    network = networks.build(networks.dinov2_config(experiment.probe, SIZE, experiment.classes))
    if arguments.weights:
        base_weights.load(network, arguments.weights, None)
    backbone = network.dinov2.eval()
    with TemporaryDirectory() as temporary:
        layout = Layout(Path(temporary))
        sources = raw.collect(experiment.data, experiment.classes, layout, lambda line: None)
        prepare(layout, sources, experiment.data, experiment.classes, lambda line: None)
        files = dataset.kept(layout.processed, "train")["file"].tolist()[: arguments.images]
        started = time.perf_counter()
        embed = embedder(backbone, Preprocessing(SIZE))
        print(f"made ready once, in {time.perf_counter() - started:.1f} s")

        def ours() -> float:
            return seconds(lambda: list(embed(layout.processed, files)))

        def against(name: str, way: Callable[..., None]) -> Comparison:
            def theirs() -> float:
                return seconds(lambda: way(backbone, layout.processed, files))

            return Comparison(name, *interleaved(theirs, ours, arguments.repetitions), BAR)

        comparisons = [
            against(f"eager torch, batches of {BATCH}", batched),
            against("eager torch, one image after another", naive),
        ]
    show(f"CLS embeddings of {len(files)} images by DINOv2-small at {SIZE} px", comparisons)
    needed, rate = operations(backbone), fastest()
    print(
        f"\nours: {len(files) / comparisons[0].ours:.1f} images per second; the {needed / 1e9:.1f} "
        f"GFLOP of an image allow torch {rate / needed:.1f} at the {rate / 1e9:.0f} GFLOP/s "
        f"of its product of matrices of {SIDE} x {SIDE}"
    )


if __name__ == "__main__":
    main()
