"""What a step costs, and how that grows."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

# From one size to the next.
FACTOR = 4


class Cost(NamedTuple):
    """What one step takes.

    Attributes:
        seconds: of the processors.
        memory: bytes in memory at its peak, beyond those of a process that does nothing.
        disk: bytes by which the data root grew.
    """

    seconds: float
    memory: float
    disk: float


def measure(step: Callable[[], object], root: Path) -> Cost:
    """Run a step in a process of its own, which has imported all that this one has.

    Args:
        step: what it does.
        root: the data root.

    Raises:
        RuntimeError: it failed.
    """
    _, idle = _forked(lambda: None)
    before = _size(root)
    seconds, memory = _forked(step)
    return Cost(seconds, memory - idle, _size(root) - before)


def _forked(step: Callable[[], object]) -> tuple[float, int]:
    """Processor seconds and peak memory of a child, as the kernel counts them."""
    child = os.fork()
    if child == 0:
        ended = 1
        try:
            step()
            ended = 0
        finally:
            if ended:
                sys.excepthook(*sys.exc_info())
            os._exit(ended)
    _, status, used = os.wait4(child, 0)
    if status:
        raise RuntimeError("a step failed: see above")
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_utime + used.ru_stime, used.ru_maxrss * unit


def exponent(values: Sequence[float]) -> float | None:
    """How a cost grows between the two largest sizes: 1 is in proportion to the size.

    What the start costs makes it smaller, the less the larger the sizes are. Between the smallest
    sizes it would say little else.

    Args:
        values: of rising sizes, each :data:`FACTOR` times the one before.

    Returns:
        k of a cost n^k; None where the cost is nothing.
    """
    before, after = values[-2:]
    return math.log(after / before, FACTOR) if before > 0 and after > 0 else None


def each(values: Sequence[float], sizes: Sequence[int]) -> float:
    """Cost of one more image, between the first and the last size; at least 0."""
    return max(0.0, (values[-1] - values[0]) / (sizes[-1] - sizes[0]))


def _size(root: Path) -> int:
    """Blocks on disk, those of a file once however many links it has."""
    stats = (path.lstat() for path in root.rglob("*") if not path.is_dir())
    return sum({(one.st_dev, one.st_ino): one.st_blocks * 512 for one in stats}.values())
