"""Lightning modules: the validation that both models share, and the main model's training."""

import math
from typing import Any

import lightning as L
import torch
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from cxr_assets.learning import calibration, drop_path, networks
from cxr_assets.learning.mixing import mix
from cxr_assets.learning.muon import Muon
from cxr_assets.learning.optimization import parameter_groups
from cxr_assets.radiographs.datamodule import Batch, EpochShuffle
from cxr_assets.radiographs.shard import Shard, from_all

MONITOR = "val_macro_f1"
TEMPERATURE = "val_temperature"


class Classification(L.LightningModule):
    """Classification network with validation; subclasses add hyperparameters and training.

    Args:
        network: transformers configuration; enough to rebuild the network without network access.
        num_classes: number of classes.
    """

    # Whether logits are averaged over an image and its horizontal flip, as they will be in service.
    flip_averaging = False

    def __init__(self, network: dict[str, Any], num_classes: int) -> None:
        super().__init__()
        self._validated: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.network = networks.build(network)
        self.metrics = MetricCollection(
            {
                "val_accuracy": MulticlassAccuracy(num_classes, average="micro"),
                MONITOR: MulticlassF1Score(num_classes, average="macro"),
                "val_auroc": MulticlassAUROC(num_classes, average="macro"),
            }
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits float32 [N, classes] of normalised images [N, 3, H, W]."""
        logits: torch.Tensor = self.network(pixel_values=inputs).logits
        return logits

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
        """Logits as the model will serve them, and metrics over the whole split."""
        inputs, labels = batch
        logits = self(inputs).float()
        if self.flip_averaging:
            logits = (logits + self(inputs.flip(-1)).float()) / 2
        loss = nn.functional.cross_entropy(logits, labels)
        self.log("val_loss", loss, batch_size=len(labels), sync_dist=True)
        self.metrics.update(logits.softmax(dim=1), labels)
        self._validated.append((logits.cpu(), labels.cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the epoch, and the temperature that calibrates its logits."""
        self.log_dict(self.metrics.compute(), sync_dist=True)
        self.metrics.reset()
        validated = from_all(self._validated)
        logits, labels = (torch.cat(parts) for parts in zip(*validated, strict=True))
        self._validated.clear()
        self.log(TEMPERATURE, calibration.temperature(logits, labels), sync_dist=True)


class Classifier(Classification):
    """Classification network with loss, optimiser and schedule.

    Args:
        model_name: architecture, for the record.
        num_classes: number of classes.
        network: transformers configuration; enough to rebuild the network without network access.
        optimizer: ``adamw`` or ``muon``.
        lr: peak learning rate.
        layer_decay: factor on the learning rate from each layer to the one below it.
        weight_decay: for matrices and filters only.
        warmup_epochs: epochs of linear warm-up before the cosine decay to zero.
        label_smoothing: of the cross entropy.
        class_weights: weight of each class in the training loss, or None for equal weights.
        mixup: see :func:`cxr_assets.learning.mixing.mix`.
        cutmix: see :func:`cxr_assets.learning.mixing.mix`.
        distillation: weight of the loss of the embeddings, where batches hold them.
        flip_averaging: whether logits are averaged over an image and its horizontal flip.
    """

    def __init__(
        self,
        model_name: str,
        num_classes: int,
        network: dict[str, Any],
        optimizer: str,
        lr: float,
        layer_decay: float,
        weight_decay: float,
        warmup_epochs: float,
        label_smoothing: float,
        class_weights: list[float] | None,
        mixup: float,
        cutmix: float,
        distillation: float,
        flip_averaging: bool,
    ) -> None:
        super().__init__(network, num_classes)
        self.save_hyperparameters(logger=False)
        self.flip_averaging = flip_averaging
        self._weight = 1.0
        self._shard: Shard | None = None
        self._drop_paths: list[drop_path.DropPath] = []
        self.loss = nn.CrossEntropyLoss(
            weight=None if class_weights is None else torch.tensor(class_weights),
            label_smoothing=label_smoothing,
        )
        self.regressor: nn.Linear | None = None

    def add_regressor(self, width: int) -> None:
        """Add the head that regresses embeddings [N, width], which batches then hold.

        Only a training has it. A module that is loaded from a checkpoint leaves its weights out.
        """
        self.regressor = nn.Linear(self.network.classifier.in_features, width)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the head for the embeddings, unless a training resumes."""
        if self.regressor is None:
            state = checkpoint["state_dict"].items()
            checkpoint["state_dict"] = {
                name: value for name, value in state if not name.startswith("regressor.")
            }

    def setup(self, stage: str) -> None:
        """Where several processes share a batch, they draw their random numbers for all of it."""
        if self.trainer.world_size > 1:
            self._drop_paths = drop_path.install(self.network)

    def training_step(self, batch: Batch, index: int) -> dict[str, torch.Tensor]:
        """Losses of a batch: inputs, labels and, with a regressor, embeddings [N, width].

        Returns:
            ``loss``: weighted, smoothed cross entropy, and with a regressor the weight of the
            distillation times ``distillation``, the mean squared error of the embeddings. Mixed
            images have the embeddings of both, mixed in the same proportion.
        """
        inputs, labels, *embeddings = batch
        classes = self.hparams["num_classes"]
        targets = torch.cat([nn.functional.one_hot(labels, classes).float(), *embeddings], dim=1)
        inputs, targets = mix(
            inputs, targets, self.hparams["mixup"], self.hparams["cutmix"], self._shard
        )
        features = self.network.base_model(pixel_values=inputs).pooler_output
        loss: torch.Tensor = self.loss(self.network.classifier(features), targets[:, :classes])
        if self.regressor is None:
            return {"loss": loss}
        error = nn.functional.mse_loss(self.regressor(features), targets[:, classes:])
        return {"loss": loss + self.hparams["distillation"] * error, "distillation": error}

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Find the weight of a batch, with which every image of a step weighs the same.

        Lightning divides each loss by ``accumulate_grad_batches`` and by the number of processes,
        but the last step of an epoch may have fewer batches, and its last batch fewer images.
        """
        accumulate = self.trainer.accumulate_grad_batches
        sampler: EpochShuffle = self.trainer.train_dataloader.sampler
        images = sampler.images(index - index % accumulate, accumulate)
        self._shard = shard = sampler.shard(index)
        self._weight = shard.counted * accumulate * shard.ranks / images
        for layer in self._drop_paths:
            layer.shard = shard

    def backward(self, loss: torch.Tensor, *arguments: Any, **more: Any) -> None:
        """Gradients of a batch's share of the mean loss of its step."""
        super().backward(loss * self._weight, *arguments, **more)

    def configure_optimizers(self) -> Any:
        """The optimiser; linear warm-up, then a cosine to zero, by its steps."""
        groups = parameter_groups(
            self.network,
            self.hparams["lr"],
            self.hparams["layer_decay"],
            self.hparams["weight_decay"],
            self.regressor,
        )
        optimizer: torch.optim.Optimizer
        if self.hparams["optimizer"] == "muon":
            optimizer = Muon(groups)
        else:
            optimizer = torch.optim.AdamW(groups, fused=True)
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
