"""Stands in for the hub's weights: a ConvNeXt V2 that has learnt a frozen backbone's embeddings."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel

from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.learning import networks
from cxr_assets.learning.embeddings import embed
from cxr_assets.learning.optimization import parameter_groups
from cxr_assets.progress import Progress
from cxr_assets.radiographs import dataset
from cxr_assets.radiographs.augmentation import Augmenter
from cxr_assets.radiographs.datamodule import EpochShuffle, OnDisk
from cxr_serving.model.preprocessing import Preprocessing

# Of the network that `full` starts from.
CLASSES, SIZE = 1000, 224
LR = 1e-3
CURVE_FILE = "pretraining.csv"


def pretrain(
    directory: Path,
    experiment: Experiment,
    images: Layout,
    targets: dict[str, torch.Tensor],
    epochs: int,
    progress: Progress,
) -> pd.DataFrame:
    """Train a ConvNeXt V2 to give the embeddings of a teacher, and save it as the hub would.

    Nothing is trained if the directory is there.

    Args:
        directory: where to save it, with a classifier of random weights of 1000 classes.
        experiment: for sizes of the network, augmentation and batches.
        images: a data root with the processed dataset.
        targets: standardised embedding float32 [hidden] of each image, see :func:`embeddings`.
        epochs: over the training split; an epoch of linear warm-up, then a cosine to zero.
        progress: called with a line per epoch.

    Returns:
        One row per epoch: ``epoch``, and the mean squared error in ``train`` and ``val``; the mean
        target has an error of 1.
    """
    if (directory / CURVE_FILE).exists():
        progress(f"{directory} is there already")
        return pd.read_csv(directory / CURVE_FILE)
    torch.manual_seed(experiment.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = experiment.model.model_copy(update={"pretrained": None})
    classes = [f"class_{number}" for number in range(CLASSES)]
    network = networks.build(networks.convnext_config(model, SIZE, classes)).to(device).train()
    head = nn.Linear(network.config.hidden_sizes[-1], len(next(iter(targets.values())))).to(device)
    student = _Student(network, head, Augmenter(experiment.trainer.augmentation))
    weight_decay = experiment.trainer.weight_decay
    optimizer = torch.optim.AdamW(
        [
            *parameter_groups(network, LR, 1.0, weight_decay),
            {"params": head.parameters(), "lr": LR, "weight_decay": weight_decay},
        ],
        fused=True,
    )
    data = {split: _Split(images, split, targets, experiment, device) for split in ("train", "val")}
    steps = len(data["train"].sampler)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / steps, total_iters=steps)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps * (epochs - 1)))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], [steps])
    rows = []
    for epoch in range(epochs):
        errors = []
        for inputs, embedding in data["train"].batches(epoch):
            error = student.error(inputs, embedding)
            optimizer.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            errors.append(error.detach())
        student.eval()
        with torch.no_grad():
            validation = [student.error(*batch) for batch in data["val"].batches(epoch)]
        student.train()
        train, val = (float(torch.stack(each).mean()) for each in (errors, validation))
        rows.append({"epoch": epoch + 1, "train": train, "val": val})
        progress(f"pretraining epoch {epoch + 1}/{epochs}: error {train:.3f}, validation {val:.3f}")
    network.save_pretrained(directory)
    curve = pd.DataFrame(rows)
    curve.to_csv(directory / CURVE_FILE, index=False)
    return curve


def embeddings(
    experiment: Experiment, images: Layout, progress: Progress
) -> dict[str, torch.Tensor]:
    """Embeddings by the probe's backbone, standardised over the training split.

    Args:
        experiment: for the backbone.
        images: a data root with the processed dataset, and its cache of embeddings.
        progress: see :func:`cxr_assets.learning.embeddings.embed`.

    Returns:
        float32 [hidden] of each image in train and val, by the sha256 of its source.
    """
    probe = experiment.probe
    record = dataset.DatasetRecord.read(images.processed)
    backbone = networks.dinov2(probe, record.image_size, record.classes)
    rows = {split: dataset.kept(images.processed, split) for split in ("train", "val")}
    found = {split: embed(backbone, images, rows[split], progress) for split in rows}
    mean, scale = found["train"].mean(dim=0), found["train"].std(dim=0)
    return {
        image: row
        for split, those in rows.items()
        for image, row in zip(those["sha256"], (found[split] - mean) / scale, strict=True)
    }


class _Student(nn.Module):
    def __init__(self, network: PreTrainedModel, head: nn.Linear, augmenter: Augmenter) -> None:
        super().__init__()
        self._network, self._head, self._augmenter = network, head, augmenter

    def error(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean squared error for uint8 images [N, size, size], augmented in training."""
        inputs = self._augmenter(images) if self.training else images
        pixels = Preprocessing(images.shape[-1]).normalise(inputs)
        with torch.autocast(images.device.type, torch.bfloat16):
            embedding = self._head(self._network.convnextv2(pixel_values=pixels).pooler_output)
        return nn.functional.mse_loss(embedding.float(), targets)


class _Split:
    """Images of a split and their targets, shuffled by epoch."""

    def __init__(
        self,
        layout: Layout,
        split: str,
        targets: dict[str, torch.Tensor],
        experiment: Experiment,
        device: torch.device,
    ) -> None:
        images = OnDisk(layout.processed, split).in_memory()
        rows = dataset.kept(layout.processed, split)
        self._images, self._device = images.inputs, device
        self._targets = torch.stack([targets[image] for image in rows["sha256"]])
        batch_size = experiment.trainer.batch_size
        self.sampler = EpochShuffle(images.labels, batch_size, experiment.seed, balanced=False)

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.sampler.set_epoch(epoch)
        for indices in self.sampler:
            yield self._images[indices].to(self._device), self._targets[indices].to(self._device)
