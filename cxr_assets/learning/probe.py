"""The baseline: a linear layer on the CLS embedding of a frozen DINOv2."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.learning import base_weights, networks
from cxr_assets.learning.recipe import Recipe, balanced
from cxr_assets.progress import Progress

if TYPE_CHECKING:
    from cxr_assets.learning.backbone import MakesEmbedder
    from cxr_assets.learning.linear_probe import EmbeddingsDataModule, LinearProbe
    from cxr_assets.learning.module import Classification


class Dinov2Probe(Recipe):
    """A linear layer on a frozen DINOv2."""

    embeds = True

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.base = (experiment.probe.pretrained, experiment.probe.revision)
        # Try every strength: a weak one may be best after several worse ones.
        self.max_epochs = self.patience = len(experiment.probe.weight_decays)

    def network(self, image_size: int) -> dict[str, Any]:
        return networks.dinov2_config(self.experiment.probe, image_size, self.experiment.classes)

    def settings(self) -> dict[str, Any]:
        return self.experiment.probe.model_dump(include={"weight_decays"})

    def prepare(
        self,
        network: dict[str, Any],
        layout: Layout,
        progress: Progress,
        embedder: "MakesEmbedder | None" = None,
    ) -> tuple["LinearProbe", "EmbeddingsDataModule"]:
        # Here, because a plan needs none of it, and Lightning takes seconds to import.
        import torch

        from cxr_assets.learning import backbone
        from cxr_assets.learning.linear_probe import EmbeddingsDataModule
        from cxr_assets.radiographs.dataset import kept, labels

        classes = self.experiment.classes
        targets = torch.from_numpy(labels(kept(layout.processed, "train"), classes))
        probe = self.module()(
            model_name=self.experiment.probe.name,
            num_classes=len(classes),
            network=network,
            weight_decays=list(self.experiment.probe.weight_decays),
            class_weights=balanced(targets, len(classes)),
        )
        self._load_backbone(probe)
        data = EmbeddingsDataModule(
            probe.network.dinov2, layout, classes, progress, embedder or backbone.embedder
        )
        return probe.train(), data

    def module(self) -> "type[LinearProbe]":
        from cxr_assets.learning.linear_probe import LinearProbe

        return LinearProbe

    def restore(self, checkpoint: Path) -> "Classification":
        probe = super().restore(checkpoint)
        self._load_backbone(probe)
        return probe

    def _load_backbone(self, probe: "Classification") -> None:
        pretrained, revision = self.base
        if pretrained is not None:
            base_weights.load(probe.network, pretrained, revision)
