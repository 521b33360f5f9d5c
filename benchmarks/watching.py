"""Looks on at a training of the main model: learning rates, averages and changes of weights."""

import re
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torchmetrics.functional.classification import multiclass_f1_score

from cxr_assets.experiment import Experiment
from cxr_assets.learning.checkpoints import LAST_FILE
from cxr_assets.learning.convnext import ConvNext
from cxr_assets.learning.module import Classifier
from cxr_assets.learning.plan import Plan
from cxr_assets.radiographs.datamodule import OnDisk, in_order
from cxr_serving.model.preprocessing import Preprocessing

_STAGE = re.compile(r"stages\.(\d+)\.(?:layers\.(\d+)|downsampling_layer)")
# Of which an average is kept by its definition: the lowest and the highest.
_AVERAGED = ("convnextv2.embeddings.patch_embeddings.weight", "classifier.weight")


def layer(name: str) -> str:
    """The layer of a parameter, as layer-wise decay counts them."""
    if found := _STAGE.search(name):
        return f"stage {int(found[1]) + 1}, block {int(found[2] or 0) + 1}"
    return "stem" if ".embeddings." in name else "norm and head"


class Watch(L.Callback):
    """Notes what a training does; comes before the callbacks of the recipe.

    Attributes:
        start: weights before the first step, by name.
        end: weights after the last one, not averaged.
        rates: learning rate of the head and of the stem in each step.
        peaks: highest learning rate of each parameter.
        difference: largest difference of an averaged weight to the average by its definition.
        last: macro F1 on the validation split after the last step: of the average, and of the
            weights themselves.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._averages: dict[str, torch.Tensor] = {}
        self.start: dict[str, torch.Tensor] = {}
        self.end: dict[str, torch.Tensor] = {}
        self.rates: list[tuple[float, float]] = []
        self.peaks: dict[str, float] = {}
        self.difference = 0.0
        self.last: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep the weights."""
        self.start = _weights(module)

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int
    ) -> None:
        """Note the rates that the next step has."""
        names = {id(value): name for name, value in module.network.named_parameters()}
        rates = {
            names[id(value)]: group["lr"]
            for group in trainer.optimizers[0].param_groups
            for value in group["params"]
        }
        self.rates.append((rates[_AVERAGED[1]], rates[_AVERAGED[0]]))
        for name, rate in rates.items():
            self.peaks[name] = max(rate, self.peaks.get(name, 0.0))

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Average two of the weights; the first average is the weights after the first step."""
        for name in _AVERAGED:
            value = module.network.get_parameter(name).detach().clone()
            average = self._averages.get(name, value)
            self._averages[name] = self._decay * average + (1 - self._decay) * value

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep the weights: at the end of training the module receives their average."""
        self.end = _weights(module)

    def change(self, names: Sequence[str]) -> float:
        """L2 norm of what training added to some parameters, relative to what they were."""
        added = sum(float((self.end[name] - self.start[name]).square().sum()) for name in names)
        return float((added / sum(float(self.start[n].square().sum()) for n in names)) ** 0.5)

    def finish(self, plan: Plan) -> None:
        """Compare the average with its definition, and validate with and without it."""
        checkpoint = torch.load(plan.work / LAST_FILE, map_location="cpu", weights_only=True)
        averaged = checkpoint["state_dict"]
        self.difference = max(
            float((averaged[f"network.{name}"] - average.cpu()).abs().max())
            for name, average in self._averages.items()
        )
        module = plan.recipe.restore(plan.work / LAST_FILE)
        self.last["averaged"] = _macro_f1(module, plan)
        module.network.load_state_dict(self.end)
        self.last["not averaged"] = _macro_f1(module, plan)


class Watched(ConvNext):
    """The recipe of the main model under observation."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        self.watch = Watch(experiment.trainer.ema_decay)

    def callbacks(self) -> list[L.Callback]:
        """The observer and those of the recipe."""
        return [self.watch, *super().callbacks()]


def _weights(module: L.LightningModule) -> dict[str, torch.Tensor]:
    parameters = module.network.named_parameters()
    return {name: value.detach().cpu().clone() for name, value in parameters}


def _macro_f1(module: Classifier, plan: Plan) -> float:
    images = OnDisk(plan.layout.processed, "val")
    normalise = Preprocessing(plan.dataset.image_size).normalise
    module.eval()
    with torch.no_grad():
        answers = [module(normalise(pixels)).argmax(dim=1) for pixels, _ in in_order(images, 64)]
    number = len(plan.dataset.classes)
    predicted = torch.cat(answers)
    return float(multiclass_f1_score(predicted, images.labels, number, average="macro"))
