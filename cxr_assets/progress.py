"""How a long step reports what it is doing."""

from collections.abc import Callable

from filelock import BaseFileLock, Timeout

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
