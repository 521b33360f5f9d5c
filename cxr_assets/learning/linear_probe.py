"""A linear layer on the CLS embedding of a frozen DINOv2, and the embeddings it is fitted to."""

from typing import Any

import lightning as L
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from cxr_assets.layout import Layout
from cxr_assets.learning.backbone import MakesEmbedder, embedder
from cxr_assets.learning.embeddings import embed
from cxr_assets.learning.module import Classification
from cxr_assets.progress import Progress
from cxr_assets.radiographs.datamodule import Batch, InMemory, in_order
from cxr_assets.radiographs.dataset import kept, labels

_MAX_ITERATIONS = 1000


class LinearProbe(Classification):
    """Fits the CLS half of a ``Dinov2ForImageClassification`` head; everything else is frozen.

    The head reads the CLS embedding and the mean of the patch embeddings; with the patch half at
    zero it is a linear layer on the CLS embedding. ``forward`` takes embeddings, so that an epoch
    does not run the backbone.

    Each epoch uses one strength of regularisation, from strong to weak: full-batch L-BFGS minimises

        class-weighted cross entropy + weight_decay / 2 * ||weight||^2

    to convergence, starting from the result of the previous epoch. The penalty applies to the
    weights of standardised embeddings; the head stores the same function of the raw embeddings.

    Args:
        model_name: architecture, for the record.
        num_classes: number of classes.
        network: transformers configuration; enough to rebuild the network without network access.
        weight_decays: strengths of regularisation, one per epoch.
        class_weights: weight of each class in the training loss.
    """

    def __init__(
        self,
        model_name: str,
        num_classes: int,
        network: dict[str, Any],
        weight_decays: list[float],
        class_weights: list[float],
    ) -> None:
        # A random backbone is the same for every seed, so that all runs share its embeddings.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            super().__init__(network, num_classes)
        self.save_hyperparameters(logger=False)
        self.automatic_optimization = False
        self.network.requires_grad_(False)
        nn.init.zeros_(self.network.classifier.weight)
        nn.init.zeros_(self.network.classifier.bias)
        # A buffer, so that it survives an interruption during validation.
        self.register_buffer("train_loss", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits float32 [N, classes] of CLS embeddings [N, hidden]."""
        head: nn.Linear = self.network.classifier
        return nn.functional.linear(inputs, head.weight[:, : inputs.shape[1]], head.bias)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """L-BFGS on weight and bias of standardised embeddings."""
        classes, hidden = self.hparams["num_classes"], self.network.config.hidden_size
        # In float64 on the CPU: not every accelerator has it, and the problem is small.
        self._weight = torch.zeros(classes, hidden, dtype=torch.float64, requires_grad=True)
        self._bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
        return torch.optim.LBFGS(
            [self._weight, self._bias],
            max_iter=_MAX_ITERATIONS,
            tolerance_grad=1e-5,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

    def training_step(self, batch: Batch, index: int) -> None:
        """Fit the head to all training embeddings [N, hidden], with this epoch's weight decay."""
        embeddings, targets = batch[0].cpu().double(), batch[1].cpu()
        weight_decay = self.hparams["weight_decays"][self.current_epoch]
        class_weights = torch.tensor(self.hparams["class_weights"], dtype=torch.float64)
        mean = embeddings.mean(dim=0)
        # Less is rounding error: the backbone's last layer gives values around 1 in float32.
        scale = embeddings.std(dim=0, correction=0).clamp_min(1e-6)
        inputs = (embeddings - mean) / scale

        head: nn.Linear = self.network.classifier
        columns = head.weight[:, : len(mean)]
        with torch.no_grad():
            self._weight.copy_(columns.cpu() * scale)
            self._bias.copy_(head.bias.cpu() + columns.cpu().double() @ mean)
        optimizer = self.optimizers()
        # The curvature that L-BFGS has stored belongs to another objective.
        optimizer.state.clear()

        def cross_entropy() -> torch.Tensor:
            logits = nn.functional.linear(inputs, self._weight, self._bias)
            return nn.functional.cross_entropy(logits, targets, class_weights)

        def objective() -> torch.Tensor:
            optimizer.zero_grad()
            value: torch.Tensor = cross_entropy() + weight_decay / 2 * self._weight.square().sum()
            self.manual_backward(value)
            return value

        optimizer.step(objective)
        optimizer.state.clear()
        with torch.no_grad():
            weight = self._weight / scale
            columns.copy_(weight)
            head.bias.copy_(self._bias - weight @ mean)
            self.train_loss.copy_(cross_entropy())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the backbone out: it never changes, and it is nearly all of the bytes."""
        state = checkpoint["state_dict"]
        for name in [name for name in state if name.startswith("network.dinov2.")]:
            del state[name]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the backbone, which checkpoints leave out."""
        checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}

    def on_validation_epoch_end(self) -> None:
        """Log weight decay and training loss along with the metrics."""
        super().on_validation_epoch_end()
        self.log("weight_decay", self.hparams["weight_decays"][self.current_epoch])
        self.log("train_loss", self.train_loss)


class EmbeddingsDataModule(L.LightningDataModule):
    """CLS embeddings float32 [N, hidden] and labels int64 [N] of train and val, in one batch each.

    Args:
        backbone: the frozen DINOv2.
        layout: where dataset and embeddings are.
        classes: names in index order.
        progress: called with a line per 512 images.
        embedder: what embeds the images.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        layout: Layout,
        classes: tuple[str, ...],
        progress: Progress,
        embedder: MakesEmbedder = embedder,
    ) -> None:
        super().__init__()
        train, val = (kept(layout.processed, split) for split in ("train", "val"))
        embeddings = embed(backbone, layout, pd.concat([train, val]), progress, embedder)
        targets = torch.from_numpy(labels(pd.concat([train, val]), classes))
        self._train = InMemory(embeddings[: len(train)], targets[: len(train)])
        self._val = InMemory(embeddings[len(train) :], targets[len(train) :])

    def train_dataloader(self) -> DataLoader[Batch]:
        """All embeddings of the training images."""
        return in_order(self._train, len(self._train))

    def val_dataloader(self) -> DataLoader[Batch]:
        """All embeddings of the validation images."""
        return in_order(self._val, len(self._val))
