"""A training step against eager fp32: ``python -m benchmarks.training_step``."""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification

from benchmarks.measure import Comparison, interleaved, show
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning.convnext import ConvNext
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import Plan
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.preparation import prepare

CUDA = torch.cuda.is_available()
# The network of `scratch`; with a GPU that of `full`, without its pretrained weights. AdamW on both
# sides: what another optimiser costs and gains is a question of the recipe.
OVERRIDES = ("trainer.optimizer=adamw",) + (
    ("model=convnextv2_tiny", "model.pretrained=null", "data.image_size=224") if CUDA else ()
)
WARM_UP = 3


class StepTimes(L.Callback):
    """Seconds of every training step: forward, backward, optimiser, schedule."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *arguments: Any) -> None:
        """The batch is on the device, augmented and normalised."""
        _wait()
        self._started = time.perf_counter()

    def on_train_batch_end(self, *arguments: Any) -> None:
        """The weights are updated."""
        _wait()
        self.seconds.append(time.perf_counter() - self._started)


class Timed(ConvNext):
    """The recipe of the main model under a stopwatch, which other callbacks come after."""

    def callbacks(self) -> list[L.Callback]:
        """The stopwatch and those of the recipe."""
        self.times = StepTimes()
        return [self.times, *super().callbacks()]


def _wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def plain(plan: Plan, steps: int) -> float:
    """Seconds of a step of transformers' network, fp32, NCHW, torch's AdamW as it comes."""
    device = torch.device("cuda" if CUDA else "cpu")
    config = {key: value for key, value in plan.network.items() if key != "model_type"}
    network = AutoModelForImageClassification.from_config(
        AutoConfig.for_model(plan.network["model_type"], **config)
    )
    network.train().to(device)
    optimizer = torch.optim.AdamW(network.parameters())
    size = plan.dataset.image_size
    images = torch.randn(plan.experiment.trainer.batch_size, 3, size, size, device=device)
    labels = torch.randint(0, 3, (len(images),), device=device)
    seconds = []
    for _ in range(steps):
        _wait()
        started = time.perf_counter()
        loss = nn.functional.cross_entropy(network(pixel_values=images).logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        _wait()
        seconds.append(time.perf_counter() - started)
    return median(seconds[WARM_UP:])


def ours(plan: Plan) -> float:
    """Seconds of a step of the whole training as it is run."""
    recipe = Timed(plan.experiment)
    plan.discard()
    fit(replace(plan, recipe=recipe), lambda line: None)
    number = plan.experiment.trainer.batch_size
    images = sum(plan.dataset.counts["train"].values())
    # The last batch of an epoch may be smaller.
    whole = [
        value
        for index, value in enumerate(recipe.times.seconds)
        if index % -(-images // number) < images // number
    ]
    return median(whole[WARM_UP:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=120, help="synthetic patients a class")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        layout = Layout(Path(temporary))
        images = ["data=synthetic", f"data.synthetic_patients={arguments.patients}"]
        size = compose("scratch", ["data.folder=images"]).data.image_size
        experiment = compose(
            "scratch", [*images, f"data.image_size={size}", "trainer.max_epochs=1", *OVERRIDES]
        )
        sources = raw.collect(experiment.data, experiment.classes, layout, lambda line: None)
        prepare(layout, sources, experiment.data, experiment.classes, lambda line: None)
        plan = make_plan("convnext_model", experiment, layout)
        steps = sum(plan.dataset.counts["train"].values()) // experiment.trainer.batch_size
        figures = interleaved(lambda: plain(plan, steps), lambda: ours(plan), arguments.repetitions)
    show(
        f"Training step of {experiment.model.name}, {experiment.trainer.batch_size} images of "
        f"{plan.dataset.image_size} px",
        [Comparison("step", *figures, bar=2.5 if CUDA else 1.3)],
    )


if __name__ == "__main__":
    main()
