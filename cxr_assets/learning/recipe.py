"""Recipes: what differs between the training of the main model and that of the probe."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxr_assets.experiment import Experiment
from cxr_assets.groups import Precision
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress

# A plan needs neither: Lightning takes seconds to import.
if TYPE_CHECKING:
    import lightning as L
    import torch

    from cxr_assets.learning.backbone import MakesEmbedder
    from cxr_assets.learning.module import Classification


class Recipe(ABC):
    """The training of one model: network, data, settings, length.

    Attributes:
        experiment: all settings.
        base: hub id or directory of the base weights, and revision; None when from scratch.
        teacher: the same of the network whose embeddings it learns, too; None without distillation.
        max_epochs: maximum number of epochs.
        accumulate: batches per step of the optimiser.
        devices: that share each batch.
        precision: of the network's arithmetic in training.
        patience: epochs without a better validation macro F1 before training stops.
        flip_averaging: whether the model answers with the mean over an image and its horizontal
            flip.
        embeds: whether it needs embeddings of the images.
        onnx: whether its bundles include the network as ONNX.
    """

    onnx: ClassVar[bool] = False
    embeds: bool = False
    experiment: Experiment
    base: tuple[str | None, str | None]
    teacher: tuple[str | None, str | None] = (None, None)
    max_epochs: int
    accumulate: int = 1
    devices: int = 1
    precision: Precision = "auto"
    patience: int
    flip_averaging: bool = False

    @abstractmethod
    def __init__(self, experiment: Experiment) -> None: ...

    @abstractmethod
    def network(self, image_size: int) -> dict[str, Any]:
        """transformers configuration of the network.

        Raises:
            PretrainedError: base weights are not available.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that shapes the training except network, data, base weights, teacher and code."""

    @abstractmethod
    def prepare(
        self,
        network: dict[str, Any],
        layout: Layout,
        progress: Progress,
        embedder: "MakesEmbedder | None" = None,
    ) -> tuple["Classification", "L.LightningDataModule"]:
        """The module, with base weights loaded, and its data.

        Args:
            network: transformers configuration.
            layout: where the dataset lies.
            progress: called with lines about embeddings.
            embedder: what embeds the images, where they are embedded; None for this machine.
        """

    @abstractmethod
    def module(self) -> "type[Classification]":
        """Its Lightning module."""

    def restore(self, checkpoint: Path) -> "Classification":
        """The module with all weights of a checkpoint.

        Raises:
            PretrainedError: base weights are not available.
        """
        restored: Classification = self.module().load_from_checkpoint(
            checkpoint, map_location="cpu", weights_only=True
        )
        return restored

    def callbacks(self) -> list["L.Callback"]:
        """Lightning callbacks that only this recipe needs."""
        return []


def balanced(labels: "torch.Tensor", classes: int) -> list[float]:
    """Weights inversely proportional to class frequency, 1 on average over the images.

    Args:
        labels: int64 [N] class indices; every class occurs.
        classes: number of classes.
    """
    counts = labels.bincount(minlength=classes)
    return [float(weight) for weight in len(labels) / (classes * counts)]
