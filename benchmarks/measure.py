"""Timing of two ways of doing the same in turn, and the table that comes of it."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

# Of the square matrices whose product says what the processor can do at most.
SIDE = 2048


@dataclass(frozen=True)
class Comparison:
    """The baseline against ours.

    Attributes:
        name: of what was done.
        plain, ours: seconds.
        bar: how many times faster ours should be.
    """

    name: str
    plain: float
    ours: float
    bar: float


def seconds(action: Callable[[], object]) -> float:
    """How long ``action`` takes, work on the GPU included."""
    started = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def fastest() -> float:
    """Floating point operations per second of torch's product of large matrices, at best."""
    first, second = torch.rand(2, SIDE, SIDE)
    return 2 * SIDE**3 / min(seconds(lambda: first @ second) for _ in range(10))


def interleaved(
    plain: Callable[[], float], ours: Callable[[], float], repetitions: int
) -> tuple[float, float]:
    """Medians of two measurements in seconds, taken in turn: a busy moment hits both."""
    pairs = [(plain(), ours()) for _ in range(repetitions)]
    first, second = zip(*pairs, strict=True)
    return statistics.median(first), statistics.median(second)


def show(title: str, comparisons: Sequence[Comparison]) -> None:
    """Print the table and what machine it is from."""
    print(f"\n{title}\n{machine()}\n")
    print("| | plain s | ours s | ratio | bar | |")
    print("|---|---:|---:|---:|---:|---|")
    for row in comparisons:
        ratio = row.plain / row.ours
        verdict = "" if ratio >= row.bar else "below the bar"
        print(
            f"| {row.name} | {row.plain:.3f} | {row.ours:.3f} | {ratio:.1f}x | {row.bar:g}x "
            f"| {verdict} |",
            flush=True,
        )


def machine() -> str:
    """Processor, cores, threads, load and GPU."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [line for line in information.read_text().splitlines() if "model name" in line]
        name = models[0].split(":", 1)[1].strip() if models else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, "
        f"load average {os.getloadavg()[0]:.1f}{gpu}"
    )
