"""Batches for training and validation: from memory, or from disk if the dataset is too large."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from cxr_assets.experiment import Augmentation
from cxr_assets.radiographs.augmentation import Augmenter
from cxr_assets.radiographs.dataset import DatasetError, DatasetRecord, kept, labels, read
from cxr_assets.radiographs.shard import Shard
from cxr_serving.model.preprocessing import Preprocessing

# Four sizes are close to a linear growth.
_STAGES = 4

# Inputs, labels, and whatever else there is for each image.
Batch = tuple[torch.Tensor, ...]


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch, in the 32 bits that all generators accept.

    Args:
        seed: of the training, 0..2**32-1.
        epoch: below 1,000,003, so that no two epochs of a training share a seed.
    """
    return (seed * 1_000_003 + epoch) % 2**32


def stages(size: int, share: float, patch: int) -> tuple[int, ...]:
    """Sides of the training images, in pixels, for parts of a training of the same length.

    Images that start small make a training shorter (Tan and Le 2021, arXiv 2104.00298). There are
    few sizes, as each has kernels of its own.

    Args:
        size: of the images, and of the last stage.
        share: of the size, for the first stage; 1 is one stage.
        patch: side of the network's patches, in pixels. Sides are multiples of four patches, so
            that the network crops nothing when it first halves the resolution twice.
    """
    if share == 1:
        return (size,)
    last, unit = _STAGES - 1, 4 * patch
    exact = (size * (share + (1 - share) * stage / last) for stage in range(last))
    return *(min(round(side / unit) * unit, size) for side in exact), size


class InMemory(Dataset[Batch]):
    """Inputs and labels in memory, indexed by batches."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.inputs = inputs
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: torch.Tensor) -> Batch:
        return self.inputs[indices], self.labels[indices]


class OnDisk(Dataset[Batch]):
    """uint8 images [N, size, size] of a split, read batch by batch, and their labels [N]."""

    def __init__(self, directory: Path, split: str) -> None:
        images = kept(directory, split)
        record = DatasetRecord.read(directory)
        self.labels = torch.from_numpy(labels(images, record.classes))
        self._directory = directory
        self._files = images["file"].tolist()
        self._size = record.image_size

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: torch.Tensor) -> Batch:
        files = [self._files[index] for index in indices.tolist()]
        images = torch.from_numpy(read(self._directory, files, self._size))
        return images, self.labels[indices]

    def in_memory(self) -> InMemory:
        """The same with all images read into memory."""
        return InMemory(*self[torch.arange(len(self))])


class WithTargets(Dataset[Batch]):
    """Another dataset, with targets float32 [N, width] as the third of each batch."""

    def __init__(self, data: InMemory | OnDisk, targets: torch.Tensor) -> None:
        self.labels = data.labels
        self._data = data
        self._targets = targets

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, indices: torch.Tensor) -> Batch:
        return *self._data[indices], self._targets[indices]


class EpochShuffle(Sampler[torch.Tensor]):
    """Batches of indices. The order depends on seed and epoch only, so a resumed run repeats it.

    Args:
        labels: int64 [N] class indices.
        batch_size: indices per batch.
        seed: of the order.
        balanced: sample all classes equally often, so that images of rare classes repeat within an
            epoch; otherwise every image comes once.
        rank, ranks: which of how many processes; each has its part of the same batches.
    """

    def __init__(
        self,
        labels: torch.Tensor,
        batch_size: int,
        seed: int,
        balanced: bool,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._length = len(labels)
        self._weights = 1 / torch.bincount(labels)[labels] if balanced else None
        self._batch_size = batch_size
        self._seed = seed
        self._rank, self._ranks = rank, ranks
        self._epoch = 0
        self._skipped = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self._epoch = epoch

    def skip(self, batches: int) -> None:
        """Skip the first ``batches`` of the next epoch: a run resumes after them."""
        self._skipped = batches

    def images(self, first: int, batches: int) -> int:
        """Images in that many batches of an epoch, or in those that are left, from ``first`` on."""
        end = min(self._length, (first + batches) * self._batch_size)
        return end - first * self._batch_size

    def shard(self, batch: int) -> Shard:
        """This process's part of a batch of an epoch."""
        return Shard(self._rank, self._ranks, self.images(batch, 1))

    def __len__(self) -> int:
        return -(-self._length // self._batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(epoch_seed(self._seed, self._epoch))
        if self._weights is None:
            order = torch.randperm(self._length, generator=generator)
        else:
            order = torch.multinomial(self._weights, self._length, True, generator=generator)
        skipped, self._skipped = self._skipped, 0
        for number, batch in enumerate(torch.split(order, self._batch_size)):
            if number >= skipped:
                yield self.shard(number).of(batch)


def shuffled(
    data: InMemory | OnDisk | WithTargets,
    batch_size: int,
    seed: int,
    balanced: bool,
    rank: int = 0,
    ranks: int = 1,
) -> DataLoader[Batch]:
    """Loader for training: see :class:`EpochShuffle`."""
    return _loader(data, EpochShuffle(data.labels, batch_size, seed, balanced, rank, ranks))


def in_order(
    data: InMemory | OnDisk, batch_size: int, rank: int = 0, ranks: int = 1
) -> DataLoader[Batch]:
    """Loader for validation, always in the same order.

    Each of several processes has batches of its own, and at least one if there are enough images.
    """
    largest = min(batch_size, max(1, len(data) // ranks))
    return _loader(data, torch.split(torch.arange(len(data)), largest)[rank::ranks])


def _loader(data: Dataset[Batch], batches: Iterable[torch.Tensor]) -> DataLoader[Batch]:
    # With its own generator, a loader does not advance the global one.
    return DataLoader(data, batch_size=None, sampler=batches, generator=torch.Generator())


class RadiographsDataModule(L.LightningDataModule):
    """Images of the processed dataset, augmented in training only.

    A batch is float32 network input [N, 3, size, size], int64 labels [N] and, in training, the
    targets of these images, if any. Images are moved to the training device as uint8; augmentation
    and normalisation happen there.

    Args:
        directory: the processed dataset.
        batch_size: images per step.
        seed: of the order of the images.
        balanced: whether training samples all classes equally often.
        augmentation: its strengths.
        in_memory_limit: bytes that the images of train and val may take in memory; a larger dataset
            is read from disk batch by batch, with the same batches.
        targets: float32 [images, width], what else there is to learn of each training image, in the
            order of :func:`cxr_assets.radiographs.dataset.kept`.
        progressive: share of their side at which training images start, see :func:`stages`.
        patch: side of the network's patches, in pixels.
    """

    def __init__(
        self,
        directory: Path,
        batch_size: int,
        seed: int,
        balanced: bool,
        augmentation: Augmentation,
        in_memory_limit: int,
        targets: torch.Tensor | None = None,
        progressive: float = 1.0,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self._directory = directory
        self._batch_size = batch_size
        self._seed = seed
        self._balanced = balanced
        self._augmenter = Augmenter(augmentation)
        self._targets = targets
        record = DatasetRecord.read(directory)
        number = sum(sum(record.counts[split].values()) for split in ("train", "val"))
        self._sides = stages(record.image_size, progressive, patch)
        self._fits = number * record.image_size**2 <= in_memory_limit
        self._data: dict[str, InMemory | OnDisk] = {}

    def images(self, split: str) -> InMemory | OnDisk:
        """uint8 images [N, size, size] and labels [N] of a split, kept in memory if they fit."""
        if split not in self._data:
            images = OnDisk(self._directory, split)
            self._data[split] = images.in_memory() if self._fits else images
        return self._data[split]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training images, shuffled."""
        images = self.images("train")
        data = images if self._targets is None else WithTargets(images, self._targets)
        return shuffled(data, self._batch_size, self._seed, self._balanced, *self._ranks())

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation images, in order.

        Raises:
            DatasetError: there are fewer images than devices.
        """
        images, (rank, ranks) = self.images("val"), self._ranks()
        if len(images) < ranks:
            raise DatasetError(
                f"{len(images)} validation images are too few for trainer.devices={ranks}: set "
                f"trainer.devices={max(1, len(images))}"
            )
        return in_order(images, 2 * self._batch_size, rank, ranks)

    def _ranks(self) -> tuple[int, int]:
        """Which of how many processes this is."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment (in training only) and normalise on the device."""
        images, *others = batch
        if self.trainer is not None and self.trainer.training:
            # A function of the epoch alone, so that a resumed run repeats it.
            stage = len(self._sides) * self.trainer.current_epoch // (self.trainer.max_epochs or 1)
            shard = None
            if self.trainer.world_size > 1:
                index = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
                shard = self.trainer.train_dataloader.sampler.shard(index)
            images = self._augmenter(images, self._sides[stage], shard)
        return Preprocessing(images.shape[-1]).normalise(images), *others
