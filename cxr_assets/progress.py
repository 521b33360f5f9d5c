"""How a long step reports what it is doing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

Progress = Callable[[str], None]
"""Called with a line of text at a time: ``print``, or the ``info`` of a logger."""


def acquire(lock: BaseFileLock, busy: str, progress: Progress) -> None:
    """Acquire a lock; if another process holds it, report that and wait.

    Args:
        lock: of a file.
        busy: what the other process does, such as ``images are being prepared``.
        progress: called with a line before waiting.
    """
    try:
        lock.acquire(blocking=False)
    except Timeout:
        progress(f"{busy} in another process: waiting for {lock.lock_file}")
        lock.acquire()


@contextmanager
def held(path: Path, busy: str, progress: Progress) -> Iterator[None]:
    """Hold the lock of a file, and make its folder; arguments as for :func:`acquire`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    acquire(lock, busy, progress)
    try:
        yield
    finally:
        lock.release()
