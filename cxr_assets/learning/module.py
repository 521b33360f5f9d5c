"""The Lightning module of the main network; the probe builds on it."""

import math
from typing import Any

import lightning as L
import torch
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from cxr_assets.learning import networks

MONITOR = "val_macro_f1"


class Classifier(L.LightningModule):
    """Classification network with loss, optimiser, schedule and validation metrics.

    Args:
        model_name: architecture, for the record.
        num_classes: number of classes.
        network: transformers configuration; enough to rebuild the network without network access.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on matrices and filters only.
        warmup_epochs: epochs of linear warm-up before the cosine decay to zero.
        label_smoothing: of the cross entropy.
        class_weights: weight of each class in the training loss, or None for equal weights.
    """

    def __init__(
        self,
        model_name: str,
        num_classes: int,
        network: dict[str, Any],
        lr: float,
        weight_decay: float,
        warmup_epochs: float,
        label_smoothing: float,
        class_weights: list[float] | None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.network = networks.build(network)
        self.loss = nn.CrossEntropyLoss(
            weight=None if class_weights is None else torch.tensor(class_weights),
            label_smoothing=label_smoothing,
        )
        self.metrics = MetricCollection(
            {
                "val_accuracy": MulticlassAccuracy(num_classes, average="micro"),
                MONITOR: MulticlassF1Score(num_classes, average="macro"),
                "val_auroc": MulticlassAUROC(num_classes, average="macro"),
            }
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits float32 [N, classes] of normalised films [N, 3, H, W]."""
        logits: torch.Tensor = self.network(pixel_values=inputs).logits
        return logits

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        """Weighted, smoothed cross entropy of a batch."""
        inputs, labels = batch
        loss: torch.Tensor = self.loss(self(inputs), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
        """Plain cross entropy, and metrics over the whole split."""
        inputs, labels = batch
        logits = self(inputs)
        self.log("val_loss", nn.functional.cross_entropy(logits, labels), batch_size=len(labels))
        self.metrics.update(logits.softmax(dim=1), labels)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the epoch."""
        self.log_dict(self.metrics.compute())
        self.metrics.reset()

    def configure_optimizers(self) -> Any:
        """AdamW; linear warm-up, then a cosine to zero, stepped every batch."""
        trained = [p for p in self.parameters() if p.requires_grad]
        decayed = [p for p in trained if p.squeeze().ndim > 1]
        plain = [p for p in trained if p.squeeze().ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": self.hparams["weight_decay"]},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=self.hparams["lr"],
        )
        total = int(self.trainer.estimated_stepping_batches)
        warmup = int(self.hparams["warmup_epochs"] * total / (self.trainer.max_epochs or 1))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
