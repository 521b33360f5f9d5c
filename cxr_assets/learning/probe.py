"""The frozen baseline: a linear layer on the CLS embedding of a DINOv2 that is never trained."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader

from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.learning import networks
from cxr_assets.learning.module import Classifier
from cxr_assets.learning.recipe import Progress, Recipe, balanced
from cxr_assets.radiographs.datamodule import (
    Batch,
    FilmsDataModule,
    InMemory,
    in_order,
    shuffled,
)
from cxr_assets.radiographs.naming import CLASSES
from cxr_serving.preprocessing import Preprocessing


class LinearProbe(Classifier):
    """Trains the CLS half of a ``Dinov2ForImageClassification`` head; all else is frozen.

    The head of that network reads the CLS embedding beside the mean of the patch embeddings; with
    the patch half at zero it is exactly a linear layer on the CLS embedding. ``forward`` takes
    embeddings, so that an epoch never runs the backbone.
    """

    def __init__(self, **hyperparameters: Any) -> None:
        super().__init__(**hyperparameters)
        self.network.requires_grad_(False)
        head: nn.Linear = self.network.classifier
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        head.requires_grad_(True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits float32 [N, classes] of CLS embeddings [N, hidden]."""
        head: nn.Linear = self.network.classifier
        return nn.functional.linear(inputs, head.weight[:, : inputs.shape[1]], head.bias)

    @torch.inference_mode()
    def embed(
        self, films: torch.Tensor, batch_size: int, progress: Callable[[str], None]
    ) -> torch.Tensor:
        """CLS embeddings, computed once with the backbone in eval mode.

        Args:
            films: uint8 [N, size, size].
            batch_size: films at a time.
            progress: called with a line now and then.

        Returns:
            float32 [N, hidden] on the CPU.
        """
        backbone = self.network.dinov2.eval().to(self.device)
        preprocessing = Preprocessing(films.shape[-1])
        embeddings = []
        for start in range(0, len(films), batch_size):
            batch = films[start : start + batch_size].to(self.device)
            output = backbone(pixel_values=preprocessing.normalise(batch))
            embeddings.append(output.last_hidden_state[:, 0].float().cpu())
            if (start // batch_size) % 20 == 19:
                progress(f"embedded {start + len(batch)} of {len(films)} films")
        return torch.cat(embeddings)


class EmbeddingsDataModule(L.LightningDataModule):
    """CLS embeddings float32 [N, hidden] and labels int64 [N] of train and val, computed once."""

    def __init__(
        self,
        probe: LinearProbe,
        films: FilmsDataModule,
        batch_size: int,
        seed: int,
        progress: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._batch_size = batch_size
        self._seed = seed
        self._data = {}
        for split in ("train", "val"):
            data = films.films(split)
            embeddings = probe.embed(data.inputs, batch_size, progress)
            self._data[split] = InMemory(embeddings, data.labels)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled embeddings of the training films."""
        return shuffled(self._data["train"], self._batch_size, self._seed)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Embeddings of the validation films in order."""
        return in_order(self._data["val"], self._batch_size)


class Dinov2Probe(Recipe):
    """A linear layer on a frozen DINOv2."""

    module = LinearProbe

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.base = (experiment.probe.pretrained, experiment.probe.revision)
        self.max_epochs = self.patience = experiment.probe.max_epochs

    def network(self, image_size: int) -> dict[str, Any]:
        return networks.dinov2_config(self.experiment.probe, image_size, CLASSES)

    def settings(self) -> dict[str, Any]:
        return self.experiment.probe.model_dump(
            include={"max_epochs", "batch_size", "lr", "weight_decay"}
        )

    def prepare(
        self, network: dict[str, Any], layout: Layout, progress: Progress
    ) -> tuple[Classifier, L.LightningDataModule]:
        settings, seed = self.experiment.probe, self.experiment.seed
        films = FilmsDataModule(
            layout.processed, batch_size=settings.batch_size, seed=seed, augmentation=False
        )
        probe = LinearProbe(
            model_name=settings.name,
            num_classes=len(CLASSES),
            network=network,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            warmup_epochs=0.0,
            label_smoothing=0.0,
            class_weights=balanced(films.films("train").labels),
        )
        pretrained, revision = self.base
        if pretrained is not None:
            networks.load_pretrained(probe.network, pretrained, revision)
        return probe, EmbeddingsDataModule(probe, films, settings.batch_size, seed, progress)
