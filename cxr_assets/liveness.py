"""Which runs are alive: each holds a lock, which the kernel frees however its process ends.

It is that of flock(2): it holds between all processes and containers of one host that see the
folder, whatever their process ids and clocks are. A run on a host that does not share the folder
has no lock in it, and nothing is concluded about it.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_held: set["Lock"] = set()


class Lock:
    """Held from when it is made until it is released or its process ends, by whatever.

    Args:
        path: of the lock; its name is that of the run.
        note: what is to be known about the run when its process is gone, for JSON.

    Raises:
        OSError: the folder cannot be written, or its file system has no locks.
    """

    def __init__(self, path: Path, note: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        hidden = path.with_name(f".{path.name}.{os.getpid()}")
        self._file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # Before it takes the name: what is found under its name and not held is of the dead.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.note(note)
            hidden.rename(path)
        except BaseException:
            os.close(self._file)
            hidden.unlink(missing_ok=True)
            raise
        _held.add(self)

    def note(self, note: Mapping[str, Any]) -> None:
        """Replace what is known about the run."""
        content = json.dumps(note).encode()
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))

    def release(self) -> None:
        """The run has ended well or badly, and that is on record."""
        if self in _held:
            _held.remove(self)
            self._path.unlink(missing_ok=True)
            os.close(self._file)


def dead(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The locks that nobody holds, and their notes: runs whose process ended before they did.

    Each is held while the caller looks at it, who removes it once the end is on record. What cannot
    be opened or locked is passed over, as if it were held.

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
        return {}  # the power failed while it was written
    return note if isinstance(note, dict) else {}


def _leave_to_parent() -> None:
    for lock in _held:
        os.close(lock._file)
    _held.clear()


# A forked process would hold them, too, and may outlive the one whose runs they are.
os.register_at_fork(after_in_child=_leave_to_parent)
