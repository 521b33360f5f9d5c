"""Batches for training and validation, from one uint8 tensor a split."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from cxr_assets.radiographs.augmentation import Augmentation
from cxr_assets.radiographs.dataset import load
from cxr_serving.preprocessing import Preprocessing

Batch = tuple[torch.Tensor, torch.Tensor]


class InMemory(Dataset[Batch]):
    """Inputs and labels in memory, indexed by whole batches."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.inputs = inputs
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: torch.Tensor) -> Batch:
        return self.inputs[indices], self.labels[indices]


class EpochShuffle(Sampler[torch.Tensor]):
    """Batches of indices, in an order of seed and epoch alone: a resumed run repeats it."""

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self._length = length
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._length // self._batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(self._length, generator=generator)
        yield from torch.split(order, self._batch_size)


def shuffled(data: InMemory, batch_size: int, seed: int) -> DataLoader[Batch]:
    """Loader for training: a new order each epoch."""
    return _loader(data, EpochShuffle(len(data), batch_size, seed))


def in_order(data: InMemory, batch_size: int) -> DataLoader[Batch]:
    """Loader for validation: always the same order."""
    batches = torch.split(torch.arange(len(data)), batch_size)
    return _loader(data, batches)


def _loader(data: InMemory, batches: Iterable[torch.Tensor]) -> DataLoader[Batch]:
    # With a generator of its own, opening a loader draws nothing from the global one.
    return DataLoader(data, batch_size=None, sampler=batches, generator=torch.Generator())


class FilmsDataModule(L.LightningDataModule):
    """Films of the processed dataset, varied in training and never elsewhere.

    A batch is float32 network input [N, 3, size, size] and int64 labels [N]. Films travel to the
    training device as uint8; augmentation and normalisation happen there.

    Args:
        directory: the processed dataset.
        batch_size: films a step.
        seed: of the order of the films.
        augmentation: whether training films are varied.
    """

    def __init__(self, directory: Path, batch_size: int, seed: int, augmentation: bool) -> None:
        super().__init__()
        self._directory = directory
        self._batch_size = batch_size
        self._seed = seed
        self._augmentation = Augmentation() if augmentation else None
        self._data: dict[str, InMemory] = {}

    def films(self, split: str) -> InMemory:
        """uint8 films [N, size, size] and labels [N] of a split, read once."""
        if split not in self._data:
            self._data[split] = InMemory(*load(self._directory, split))
        return self._data[split]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled training films."""
        return shuffled(self.films("train"), self._batch_size, self._seed)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation films in order."""
        return in_order(self.films("val"), 2 * self._batch_size)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment (in training only) and normalise on the device."""
        films, labels = batch
        if self._augmentation is not None and self.trainer is not None and self.trainer.training:
            films = self._augmentation(films)
        return Preprocessing(films.shape[-1]).normalise(films), labels
