"""How a long step reports what it is doing, and waits for its turn."""

import errno
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

Progress = Callable[[str], None]
"""Called with a line of text at a time: ``print``, or the ``info`` of a logger."""

# Of flock(2) on a file system that has no locks, such as NFS without a lock daemon.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)

# Of a place that another user owns, as a volume does that root has made.
_FORBIDDEN = (errno.EACCES, errno.EPERM)
# And of a file system that is full or read-only.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, *_FORBIDDEN)


class StorageError(Exception):
    """A place is full, read-only, another user's or has no locks; the message says what to do."""


def remedy(error: OSError, place: Path) -> str:
    """What is wrong with a place, and what mends it, without a full stop.

    Args:
        error: of the system.
        place: that was to be read or written, where the error names none.
    """
    place = Path(error.filename or place).absolute()
    if error.errno not in _FORBIDDEN:
        return (
            f"{place} cannot be written: {error.strerror or error}. Free space or make the data "
            "root writable"
        )
    # Of what this user cannot see, the folder that hides it.
    found = next(path for path in (place, *place.parents) if os.path.lexists(path))
    user = f"{os.geteuid()}:{os.getegid()}"
    return (
        f"{place}: {error.strerror}. Give it to the user of this process: chown -R {user} "
        f"{shlex.quote(str(found))}"
    )


def acquire(lock: BaseFileLock, busy: str, progress: Progress) -> None:
    """Acquire a lock; if another process holds it, report that and wait.

    Args:
        lock: of a file.
        busy: what the other process does, such as ``images are being prepared``.
        progress: called with a line before waiting.

    Raises:
        StorageError: the file system has no locks, and another process could work on the same.
    """
    try:
        lock.acquire(blocking=False)
    except Timeout:
        progress(f"{busy} in another process: waiting for {lock.lock_file}")
        lock.acquire()
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        raise StorageError(
            f"{lock.lock_file} cannot be locked ({error.strerror}): its file system has no locks. "
            "Mount it with them (NFS: version 4, or version 3 with rpc.statd running), or set "
            "CXR_DATA_ROOT to a folder of another file system"
        ) from error


@contextmanager
def held(path: Path, busy: str, progress: Progress) -> Iterator[None]:
    """Hold the lock of a file, and make its folder; arguments as for :func:`acquire`.

    Raises:
        StorageError: the file system has no locks, is full or read-only, or the place is another
            user's: here, or in the body.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        acquire(lock, busy, progress)
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        message = f"{remedy(error, path.parent)}, then run the same again"
        raise StorageError(message) from error
