"""Memory and time of ``full`` on a GPU, from counts on a CPU: ``python -m benchmarks.budget``.

Memory is the sum of what stays: parameters, gradients, the two moments of AdamW and the average of
the weights, each as large as the parameters in float32, and what autograd saves of every image from
the forward to the backward pass. The last is counted exactly, by its hooks. Time is the floating
point operations, counted too, divided by an assumed share of a GPU's peak. Nothing is measured on a
GPU; here, the count is compared to the growth of this process.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from benchmarks.measure import machine
from cxr_assets.experiment import compose
from cxr_assets.learning import networks

SIZE = 224
# Parameters, gradients, two moments of AdamW, average of the weights.
COPIES = 5
# The context of CUDA, the workspaces of its libraries, and what fragmentation costs: assumed.
RESERVE = 1.5e9
# The gradients by inputs and by weights cost as much as a forward pass each. Torch's counter would
# take those by depthwise filters for dense ones, which is nearly six passes more.
PASSES = 3
# Kaggle's images outside its test split, of which 15 % validate.
TRAIN, VALIDATION = 4_440, 790
# Peak TFLOP/s, dense, from the data sheets, and the share of it that is assumed to be sustained.
GPUS = (("T4", "fp32", 8.1), ("RTX A4000", "fp32", 19.2), ("RTX A4000", "bf16", 76.7))
SHARE = 0.3


@dataclass(frozen=True)
class Activations:
    """What autograd saves of a forward pass, in bytes.

    Attributes:
        image: for each image.
        fixed: whatever the batch: copies of the weights in bfloat16.
    """

    image: int
    fixed: int


def build(size: int = SIZE) -> PreTrainedModel:
    """The network of ``full`` with random weights, in training mode."""
    experiment = compose("full", ["model.pretrained=null"])
    config = networks.convnext_config(experiment.model, size, experiment.classes)
    return networks.build(config).train()


def activations(network: PreTrainedModel, size: int, bf16: bool) -> Activations:
    """Count what is saved of images of a size, from batches of one and of two."""
    one, two = (_saved(network, batch, size, bf16) for batch in (1, 2))
    return Activations(image=two - one, fixed=2 * one - two)


def _saved(network: PreTrainedModel, batch: int, size: int, bf16: bool) -> int:
    known = {value.untyped_storage().data_ptr() for value in network.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor  # which keeps it: no later tensor has its address

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = _loss(network, batch, size, bf16)
    total = sum(saved.values())
    del loss
    return total


def _loss(network: PreTrainedModel, batch: int, size: int, bf16: bool = False) -> torch.Tensor:
    images, labels = torch.randn(batch, 3, size, size), torch.arange(batch) % 3
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = network(pixel_values=images).logits
    return nn.functional.cross_entropy(logits.float(), labels)


def operations(network: PreTrainedModel, size: int) -> int:
    """Floating point operations of an image's forward pass, in convolutions and matrix products.

    A multiplication and an addition are two.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _loss(network, 1, size)
    counted: int = counter.get_total_flops()
    return counted


def largest(capacity: float, static: int, counted: Activations) -> int:
    """Images of the largest batch that fits into so many bytes of GPU memory."""
    return int((capacity - RESERVE - static - counted.fixed) // counted.image)


def growth(network: PreTrainedModel, batch: int, size: int) -> int:
    """Bytes by which this process grows in a forward pass in float32, whose graph is kept."""
    _loss(network, 1, size).backward()  # type: ignore[no-untyped-call]
    before = _resident()
    loss = _loss(network, batch, size)
    after = _resident()
    loss.backward()  # type: ignore[no-untyped-call]
    network.zero_grad()
    return after - before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def step_seconds(
    network: PreTrainedModel, batch: int, size: int, steps: int
) -> tuple[float, float]:
    """Of the fastest of some training steps, eager in float32: the clock's and the processor's."""
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    taken = []
    for _ in range(1 + steps):
        started = time.perf_counter(), time.process_time()
        _loss(network, batch, size).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        taken.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    clock, processor = zip(*taken[1:], strict=True)
    return min(clock), min(processor)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="of what is measured here")
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()
    network = build()
    parameters = sum(value.numel() for value in network.parameters())
    static = COPIES * 4 * parameters
    counted = {name: activations(network, SIZE, name == "bf16") for name in ("fp32", "bf16")}
    print(f"\n{parameters:,} parameters x {COPIES} copies x 4 bytes = {static / 1e9:.2f} GB\n")
    rows = [
        {
            "precision": name,
            "saved for each image, MB": each.image / 1e6,
            "fixed, GB": each.fixed / 1e9,
            "batch of 32, GB": (static + each.fixed + 32 * each.image) / 1e9,
            **{
                f"largest batch in {size} GB": largest(size * 1e9, static, each)
                for size in (8, 12, 16)
            },
        }
        for name, each in counted.items()
    ]
    _print(pd.DataFrame(rows), "", ".1f", ".2f", ".2f", "g", "g", "g")

    forward = operations(network, SIZE)
    print(f"{forward / 1e9:.2f} GFLOP forward, {PASSES} times that with backward, for an image\n")
    work = (PASSES * TRAIN + VALIDATION) * forward / 1e12
    gpus = [
        {"GPU": gpu, "precision": precision, "peak TFLOP/s": peak, "sustained": peak * SHARE,
         "minutes an epoch": work / (peak * SHARE) / 60}
        for gpu, precision, peak in GPUS
    ]  # fmt: skip
    _print(pd.DataFrame(gpus), "", "", ".1f", ".1f", ".1f")

    grown, expected = (
        growth(network, arguments.batch, SIZE),
        arguments.batch * counted["fp32"].image,
    )
    clock, processor = step_seconds(network, arguments.batch, SIZE, arguments.steps)
    print(
        f"{machine()}\n"
        f"batch of {arguments.batch}, fp32: in the forward pass this process grew by "
        f"{grown / 1e9:.2f} GB; {expected / 1e9:.2f} GB are counted ({expected / grown - 1:+.0%}); "
        f"a step took {clock:.1f} s, {processor:.1f} s of the processor"
    )


def _print(table: pd.DataFrame, *formats: str) -> None:
    print(table.to_markdown(index=False, floatfmt=formats), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
