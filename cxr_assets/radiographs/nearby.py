"""Locality-sensitive hashing: similar vectors are found among many without comparing all pairs."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

# Up to so many all pairs are compared, which takes less than half a minute.
_FEW = 20_000
_IN_A_GROUP = 256
_BATCH = 2048
# The chance to overlook a pair that is just similar enough.
_MISSED = 1e-3

Positions = npt.NDArray[np.intp]


def groups(
    unit: Callable[[Positions], npt.NDArray[np.float32]], number: int, similarity: float
) -> Iterator[Positions]:
    """Groups of vectors such that two similar ones are together in at least one of them.

    Up to 20,000 vectors are one group. More are divided many times, by random hyperplanes
    (Charikar, STOC 2002): each separates two vectors with a chance in proportion to their angle.
    The same vectors are always divided alike. A pair of the given similarity is overlooked with a
    chance of .1 % at most; where that is .9, a pair of .95 with one of .003 %.

    Args:
        unit: the vectors at these positions, float32 [n, size], each of length 1.
        number: of all vectors.
        similarity: product of two vectors from which on they are similar.

    Yields:
        Positions in rising order, of about 256 vectors each.
    """
    everything = np.arange(number)
    if number <= _FEW:
        yield everything
        return
    planes = round(math.log2(number / _IN_A_GROUP))
    together = (1 - math.acos(similarity) / math.pi) ** planes
    divisions = math.ceil(math.log(_MISSED) / math.log1p(-together))
    for sides in _sides(unit, number, planes, divisions):
        order = np.argsort(sides, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(sides[order])) + 1):
            if len(group) > 1:
                yield group


def _sides(
    unit: Callable[[Positions], npt.NDArray[np.float32]], number: int, planes: int, divisions: int
) -> npt.NDArray[np.uint32]:
    """On which sides of its planes each vector is, as bits: [divisions, number]."""
    size = unit(np.arange(1)).shape[1]
    normals = np.random.default_rng(0).standard_normal((size, divisions * planes), np.float32)
    bits = 2 ** np.arange(planes, dtype=np.uint32)
    sides = np.empty((divisions, number), np.uint32)
    for start in range(0, number, _BATCH):
        vectors = unit(np.arange(start, min(start + _BATCH, number)))
        above = (vectors @ normals > 0).reshape(-1, divisions, planes)
        sides[:, start : start + _BATCH] = (above @ bits).T
    return sides
