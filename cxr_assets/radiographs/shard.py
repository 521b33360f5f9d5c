"""The part of a batch that each of several processes computes."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The rows of a batch that are this process's.

    Random numbers are drawn for the whole batch and then sliced: those of an image depend on its
    place in the batch and not on the number of processes, whose generators stay in step.

    Attributes:
        rank: of this process.
        ranks: number of processes.
        total: rows of the batch.
    """

    rank: int
    ranks: int
    total: int

    @property
    def size(self) -> int:
        """Rows of every process but the last ones."""
        return -(-self.total // self.ranks)

    @property
    def counted(self) -> int:
        """Rows whose gradients count: none in a process for which no row is left."""
        return max(0, min(self.size, self.total - self.rank * self.size))

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """This process's rows of [total, ...]; where none is left, the first: networks need one."""
        first = self.rank * self.size if self.counted else 0
        return whole[first : first + max(1, self.counted)]

    def gathered(self, rows: torch.Tensor) -> torch.Tensor:
        """[total, ...] of the rows of all processes, which all call this."""
        if self.ranks == 1:
            return rows
        padding = rows.new_zeros(self.size - len(rows), *rows.shape[1:])
        padded = torch.cat([rows, padding])
        of_all = [torch.empty_like(padded) for _ in range(self.ranks)]
        distributed.all_gather(of_all, padded)
        return torch.cat(of_all)[: self.total]


def from_all(items: list[T]) -> list[T]:
    """The items of all processes, in the order of their ranks; those of the only one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return items
    of_all: list[list[T]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(of_all, items)
    return [item for of_one in of_all for item in of_one]
