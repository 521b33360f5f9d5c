"""Work in threads, of which only a part waits at a time."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

_BATCH = 4096


def in_order(
    pool: ThreadPoolExecutor, work: Callable[..., T], *arguments: Iterable[Any]
) -> Iterator[T]:
    """As ``pool.map``, which submits everything at once: 1.5 kB for each call that waits."""
    calls = zip(*arguments, strict=True)
    while batch := list(islice(calls, _BATCH)):
        yield from pool.map(work, *zip(*batch, strict=True))
