"""The main model: ConvNeXt V2."""

from typing import TYPE_CHECKING, Any

from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.learning import base_weights, networks
from cxr_assets.learning.recipe import Recipe, balanced
from cxr_assets.progress import Progress

if TYPE_CHECKING:
    import lightning as L

    from cxr_assets.learning.backbone import MakesEmbedder
    from cxr_assets.learning.module import Classifier


class ConvNext(Recipe):
    """Fine-tuned from the hub's weights, or trained from scratch."""

    onnx = True

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.base = (experiment.model.pretrained, experiment.model.revision)
        if experiment.trainer.distillation:
            self.teacher = (experiment.probe.pretrained, experiment.probe.revision)
            self.embeds = True
        self.max_epochs = experiment.trainer.max_epochs
        self.accumulate = experiment.trainer.accumulate
        self.devices = experiment.devices
        self.precision = experiment.trainer.precision
        self.patience = experiment.trainer.patience
        self.flip_averaging = experiment.trainer.flip_averaging

    def network(self, image_size: int) -> dict[str, Any]:
        return networks.convnext_config(self.experiment.model, image_size, self.experiment.classes)

    def settings(self) -> dict[str, Any]:
        model = self.experiment.model.model_dump(include={"lr", "layer_decay"})
        trainer = self.experiment.trainer.model_dump(exclude={"devices"})
        return {**model, **trainer, "seed": self.experiment.seed}

    def prepare(
        self,
        network: dict[str, Any],
        layout: Layout,
        progress: Progress,
        embedder: "MakesEmbedder | None" = None,
    ) -> tuple["Classifier", "L.LightningDataModule"]:
        # Here, because a plan needs none of it, and Lightning takes seconds to import.
        from cxr_assets.radiographs.datamodule import RadiographsDataModule

        settings, targets = self.experiment.trainer, None
        if settings.distillation:
            from cxr_assets.learning import backbone, distillation

            targets = distillation.targets(
                self.experiment, layout, progress, embedder or backbone.embedder
            )
        images = RadiographsDataModule(
            layout.processed,
            batch_size=settings.batch_size,
            seed=self.experiment.seed,
            balanced=settings.class_balance == "sampling",
            augmentation=settings.augmentation,
            in_memory_limit=self.experiment.data.in_memory_limit // self.devices,
            targets=targets,
            progressive=settings.progressive,
            patch=network["patch_size"],
        )
        classes, weights = len(self.experiment.classes), None
        if settings.class_balance == "weights":
            weights = balanced(images.images("train").labels, classes)
        module = self.module()(
            model_name=self.experiment.model.name,
            num_classes=classes,
            network=network,
            optimizer=settings.optimizer,
            lr=self.experiment.model.lr,
            layer_decay=self.experiment.model.layer_decay,
            weight_decay=settings.weight_decay,
            warmup_epochs=settings.warmup_epochs,
            label_smoothing=settings.label_smoothing,
            class_weights=weights,
            mixup=settings.mixup,
            cutmix=settings.cutmix,
            distillation=settings.distillation,
            flip_averaging=settings.flip_averaging,
        )
        pretrained, revision = self.base
        if pretrained is not None:
            base_weights.load(module.network, pretrained, revision)
        if targets is not None:
            module.add_regressor(targets.shape[1])
        return module, images

    def module(self) -> "type[Classifier]":
        from cxr_assets.learning.module import Classifier

        return Classifier

    def callbacks(self) -> list["L.Callback"]:
        from cxr_assets.learning.ema import Ema

        decay = self.experiment.trainer.ema_decay
        return [Ema(decay)] if decay else []
