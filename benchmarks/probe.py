"""The probe against training with the backbone in the loop: ``python -m benchmarks.probe``."""

import argparse
import itertools
import shutil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import nn

from benchmarks.measure import Comparison, interleaved, seconds, show
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning import networks
from cxr_assets.learning.fit import fit
from cxr_assets.learning.plan import Plan
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.datamodule import OnDisk
from cxr_assets.radiographs.preparation import prepare
from cxr_serving.model.preprocessing import Preprocessing

EPOCHS = 20
BATCH = 64
# The shape of DINOv2-small with random weights, on synthetic images of 112 pixels.
OVERRIDES = (
    "probe.hidden_size=384",
    "probe.num_hidden_layers=12",
    "probe.num_attention_heads=6",
    "probe.patch_size=14",
    "data.image_size=112",
)
OTHER_HEAD = "probe.weight_decays=[20,7,2,0.7,0.2,0.07,0.02,0.007,0.002,0.0007,0.0002]"


def train(plan: Plan, epochs: int) -> float:
    """Seconds of 20 epochs of a linear head, validation included, all through the backbone.

    Only ``epochs`` of them are run: they all cost the same.
    """
    network = networks.build(plan.network)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = network.dinov2.eval().to(device)
    images = [OnDisk(plan.layout.processed, split).in_memory() for split in ("train", "val")]
    normalise = Preprocessing(plan.dataset.image_size).normalise
    head = nn.Linear(backbone.config.hidden_size, len(plan.dataset.counts["train"])).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            output = backbone(pixel_values=normalise(pixels.to(device)))
        answer: torch.Tensor = head(output.last_hidden_state[:, 0])
        return answer

    def epoch() -> None:
        pixels, labels = images[0].inputs, images[0].labels
        for batch in torch.split(torch.randperm(len(labels)), BATCH):
            loss = nn.functional.cross_entropy(logits(pixels[batch]), labels[batch].to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        pixels, labels = images[1].inputs, images[1].labels
        with torch.no_grad():
            for batch in torch.split(torch.arange(len(labels)), BATCH):
                logits(pixels[batch]).argmax(dim=1)

    return sum(seconds(epoch) for _ in range(epochs)) * EPOCHS / epochs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=300, help="synthetic patients a class")
    parser.add_argument("--epochs", type=int, default=1, help="that the baseline runs")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        made = Layout(Path(temporary) / "made")
        patients = f"data.synthetic_patients={arguments.patients}"
        experiment = compose("demo", [*OVERRIDES, patients])
        sources = raw.collect(experiment.data, experiment.classes, made, lambda line: None)
        record, _ = prepare(made, sources, experiment.data, experiment.classes, lambda line: None)
        rounds = itertools.count()

        def fresh() -> Plan:
            """A data root that holds nothing but the images."""
            layout = Layout(Path(temporary) / f"root-{next(rounds)}")
            shutil.copytree(made.processed, layout.processed)
            return make_plan("dinov2_probe", experiment, layout)

        def ours() -> float:
            plan = fresh()
            first.append(seconds(lambda: fit(plan, lambda line: None)))
            other = make_plan(
                "dinov2_probe", compose("demo", [*OVERRIDES, patients, OTHER_HEAD]), plan.layout
            )
            again.append(seconds(lambda: fit(other, lambda line: None)))
            return first[-1]

        first: list[float] = []
        again: list[float] = []
        plan = fresh()
        figures = interleaved(lambda: train(plan, arguments.epochs), ours, arguments.repetitions)
    number = sum(sum(record.counts[split].values()) for split in ("train", "val"))
    show(
        f"Probe of DINOv2-small's shape on {number} images, against {EPOCHS} epochs of the plain "
        f"way ({arguments.epochs} run, times {EPOCHS / arguments.epochs:g})",
        [
            Comparison("backbone once, then the head", *figures, bar=15),
            Comparison("the same with another head", figures[0], median(again), 15),
        ],
    )


if __name__ == "__main__":
    main()
