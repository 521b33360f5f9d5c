"""Epochs of images, no network, against a plain loader: ``python -m benchmarks.data_path``."""

import argparse
import itertools
import logging
import time
import warnings
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset

from benchmarks import images
from benchmarks.measure import Comparison, seconds, show
from cxr_assets.experiment import Experiment, compose
from cxr_assets.layout import Layout
from cxr_assets.learning.allocator import keep_freed_memory
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.progress import Progress
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.dataset import kept, labels
from cxr_assets.radiographs.preparation import prepare
from cxr_serving.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD


class PlainImages(Dataset[tuple[torch.Tensor, int]]):
    """Decodes, resizes, varies and normalises an image whenever it is asked for."""

    def __init__(self, paths: list[Path], labels: list[int], size: int, vary: bool) -> None:
        self._paths = paths
        self._labels = labels
        self._size = size
        self._vary = vary

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(self._paths[index]).convert("L").resize((self._size, self._size))
        if self._vary:
            image = _vary(image)
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).expand(3, -1, -1)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (pixels - mean) / std, self._labels[index]


def _vary(image: Image.Image) -> Image.Image:
    draw = np.random.default_rng().uniform
    if draw() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    width, height = image.size
    shift = (int(draw(-0.06, 0.06) * width), int(draw(-0.06, 0.06) * height))
    image = image.rotate(draw(-8, 8), Image.Resampling.BILINEAR, translate=shift)
    image = ImageEnhance.Brightness(image).enhance(draw(0.85, 1.15))
    return ImageEnhance.Contrast(image).enhance(draw(0.7, 1.3))


class Idle(L.LightningModule):
    """Takes the batches and does nothing with them."""

    def training_step(self, batch: Any, index: int) -> None:
        """Nothing."""

    def validation_step(self, batch: Any, index: int) -> None:
        """Nothing."""

    def configure_optimizers(self) -> None:
        """None."""


class EpochTimes(L.Callback):
    """When the epochs ended, validation included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note it."""
        self.ends.append(time.perf_counter())


def ours(experiment: Experiment, layout: Layout, epochs: int) -> list[float]:
    """Seconds of each epoch, of which the first includes collecting and preparing the images."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    started = time.perf_counter()
    quiet: Progress = lambda line: None  # noqa: E731
    keep_freed_memory()  # as a training does
    sources = raw.collect(experiment.data, experiment.classes, layout, quiet)
    prepare(layout, sources, experiment.data, experiment.classes, quiet)
    plan = make_plan("convnext_model", experiment, layout)
    _, datamodule = plan.recipe.prepare(plan.network, layout, quiet)
    times = EpochTimes()
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[times],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings(action="ignore"):  # that nothing is trained
        trainer.fit(Idle(), datamodule=datamodule)
    return [end - start for start, end in itertools.pairwise([started, *times.ends])]


def plain(experiment: Experiment, layout: Layout, epochs: int) -> list[float]:
    """Seconds of each epoch over the same images, with two worker processes that stay."""
    loaders = []
    for split in ("train", "val"):
        rows = kept(layout.processed, split)
        paths = [experiment.data.folder / path for path in rows["path"]]
        data = PlainImages(
            paths,
            labels(rows, experiment.classes).tolist(),
            experiment.data.image_size,
            vary=split == "train",
        )
        loaders.append(
            DataLoader(
                data,
                batch_size=experiment.trainer.batch_size,
                shuffle=split == "train",
                num_workers=2,
                persistent_workers=True,
            )
        )
    return [seconds(lambda: [None for loader in loaders for _ in loader]) for _ in range(epochs)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        images.make(root / "images", arguments.images)
        experiment = compose("scratch", [f"data.folder={root / 'images'}"])
        first: tuple[list[float], list[float]] = ([], [])
        later: tuple[list[float], list[float]] = ([], [])
        for repetition in range(arguments.repetitions):
            layout = Layout(root / f"data-{repetition}")
            ours_seconds = ours(experiment, layout, arguments.epochs)
            plain_seconds = plain(experiment, layout, arguments.epochs)
            for place, times in enumerate((plain_seconds, ours_seconds)):
                first[place].append(times[0])
                later[place].extend(times[1:])
    size = experiment.data.image_size
    show(
        f"Epoch data path of {arguments.images} images of 1330 x 970 at {size} px, no network",
        [
            Comparison(
                "first epoch, preparation included", median(first[0]), median(first[1]), bar=1
            ),
            Comparison("later epoch", median(later[0]), median(later[1]), bar=20),
        ],
    )


if __name__ == "__main__":
    main()
