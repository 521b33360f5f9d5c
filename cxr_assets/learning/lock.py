"""The lock of a training, and the errors of its work folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from cxr_assets.learning.plan import Plan
from cxr_assets.progress import Progress, acquire, remedy


class TrainingError(Exception):
    """A training cannot continue; the message says why and what to do."""


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns a place that cannot be written into a :class:`TrainingError` that names it."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{remedy(error, place)}, then run the same again: it resumes from the last checkpoint"
        ) from error


@contextmanager
def locked(plan: Plan, progress: Progress) -> Iterator[None]:
    """Hold the training's lock, so that it runs only once at a time; waits for other processes.

    The lock is reentrant. Check the state of the training after acquiring it, not before.

    Raises:
        TrainingError: the lock cannot be written.
    """
    lock = FileLock(plan.lock, is_singleton=True)
    with writing(plan.lock):
        acquire(lock, "the same training runs", progress)
    try:
        yield
    finally:
        # Only the holder may remove the file: a waiting process notices that it is gone.
        if lock.lock_counter == 1 and not plan.work.exists():
            plan.lock.unlink(missing_ok=True)
        lock.release()
