"""A training step against eager fp32: ``python -m benchmarks.training_step``.

The limit is what the multiply-adds alone would take at the rate of the processor's best product of
matrices. With ``--profile``, the operations of our step that take most time follow.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from benchmarks import budget, measure
from benchmarks.measure import Comparison, interleaved, seconds, show
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning import networks
from cxr_assets.learning.allocator import keep_freed_memory
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
PROFILED = 10


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


def stepper(network: PreTrainedModel, plan: Plan, form: torch.memory_format) -> Callable[[], None]:
    """A training step of a network in fp32, with images and weights in a memory format."""
    device = torch.device("cuda" if CUDA else "cpu")
    network.train().to(device, memory_format=form)
    optimizer = torch.optim.AdamW(network.parameters())
    size = plan.dataset.image_size
    images = torch.randn(plan.experiment.trainer.batch_size, 3, size, size, device=device)
    images = images.to(memory_format=form)
    labels = torch.randint(0, 3, (len(images),), device=device)

    def step() -> None:
        loss = nn.functional.cross_entropy(network(pixel_values=images).logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def plain(plan: Plan, steps: int, form: torch.memory_format) -> float:
    """Seconds of a step of transformers' network, torch's AdamW as it comes."""
    config = {key: value for key, value in plan.network.items() if key != "model_type"}
    network = AutoModelForImageClassification.from_config(
        AutoConfig.for_model(plan.network["model_type"], **config)
    )
    step = stepper(network, plan, form)
    return median([seconds(step) for _ in range(steps)][WARM_UP:])


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


def limit(plan: Plan) -> float:
    """Seconds that the multiply-adds of a step take at the rate of a large product of matrices."""
    config = networks.build(plan.network).eval()
    images = plan.experiment.trainer.batch_size
    needed = images * budget.PASSES * budget.operations(config, plan.dataset.image_size)
    return needed / measure.fastest()


def profiled(plan: Plan) -> str:
    """The operations of our step by their own time, on one thread."""
    keep_freed_memory()  # as a training does
    torch.set_num_threads(1)
    step = stepper(networks.build(plan.network), plan, torch.preserve_format)
    for _ in range(PROFILED):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(PROFILED):
            step()
    operations = sorted(found.key_averages(), key=lambda one: -one.self_cpu_time_total)
    total = sum(one.self_cpu_time_total for one in operations)
    rows = [
        f"| {one.key} | {taken / PROFILED / 1000:.1f} | {taken / total:.0%} |"
        for one in operations[:12]
        if (taken := one.self_cpu_time_total)
    ]
    return "\n".join(["| one step on one thread | ms | |", "|---|---:|---:|", *rows])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=120, help="synthetic patients a class")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="and print the operations")
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

        def against(name: str, form: torch.memory_format) -> Comparison:
            def theirs() -> float:
                return plain(plan, steps, form)

            times = interleaved(theirs, lambda: ours(plan), arguments.repetitions)
            return Comparison(f"step, {name}", *times, bar=2.5 if CUDA else 1.5)

        rows = [
            against("NCHW", torch.contiguous_format),
            against("channels_last", torch.channels_last),
        ]
        show(
            f"Training step of {experiment.model.name}, {experiment.trainer.batch_size} images of "
            f"{plan.dataset.image_size} px",
            rows,
        )
        print(f"\nthe multiply-adds alone would take {limit(plan):.3f} s")
        if arguments.profile:
            print(f"\n{profiled(plan)}")


if __name__ == "__main__":
    main()
