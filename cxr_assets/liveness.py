"""Which runs are alive: each holds a lock, which the kernel frees however its process ends.

The lock is that of flock(2): it works between all processes and containers of one host that see the
folder, independently of process ids and clocks. A run on a host that does not share the folder has
no lock here, so nothing is concluded about it.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_held: set["Lock"] = set()


class Lock:
    """Held from its creation until it is released or its process ends.

    Args:
        path: of the lock; its name is that of the run.
        note: facts about the run for whoever finds the lock, as JSON.

    Raises:
        OSError: the folder cannot be written, or its file system does not support locks.
    """

    def __init__(self, path: Path, note: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        hidden = path.with_name(f".{path.name}.{os.getpid()}")
        self._file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # Locked before it is renamed: a lock that has its name and is not held is dead.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.note(note)
            hidden.rename(path)
        except BaseException:
            os.close(self._file)
            hidden.unlink(missing_ok=True)
            raise
        _held.add(self)

    def note(self, note: Mapping[str, Any]) -> None:
        """Replace the note."""
        content = json.dumps(note).encode()
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))

    def release(self) -> None:
        """Remove the lock, once the end of the run is recorded."""
        if self in _held:
            _held.remove(self)
            self._path.unlink(missing_ok=True)
            os.close(self._file)


def dead(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Locks that no process holds, with their notes: runs whose process ended before they did.

    Each is locked during its iteration; the caller removes it once the end is recorded. A lock that
    cannot be opened or locked is skipped, as if it were held.

    Args:
        folder: of the locks; it may be absent.
    """
    for path in sorted(folder.glob("[!.]*")):
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have removed it between the two calls.
            ours = os.path.samestat(os.fstat(file), path.stat())
        except OSError:
            ours = False
        try:
            if ours:
                yield path, _read(file)
        finally:
            os.close(file)


def _read(file: int) -> dict[str, Any]:
    try:
        note = json.loads(os.pread(file, 2**16, 0))
    except ValueError:
        return {}  # cut short, as by a power failure
    return note if isinstance(note, dict) else {}


def _leave_to_parent() -> None:
    for lock in _held:
        os.close(lock._file)
    _held.clear()


# A forked process would hold the locks, too, and may outlive the process that owns the runs.
os.register_at_fork(after_in_child=_leave_to_parent)
