"""The limits of a container on memory and processes, by control groups of version 1 or 2."""

from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
# Controller and file of each version: `max` of version 2 is the limit of version 1.
_FILES = {
    1: {"memory": "memory.limit_in_bytes", "pids": "pids.max"},
    2: {"memory": "memory.max", "pids": "pids.max"},
}


class Limits:
    """Of one container.

    Args:
        name: of the container.
        memory: most bytes.
        processes: most processes and threads.
    """

    def __init__(self, name: str, memory: int | None, processes: int | None) -> None:
        version = 2 if (_ROOT / "cgroup.controllers").exists() else 1
        limits = {"memory": memory, "pids": processes}
        self._values = {
            (_ROOT if version == 2 else _ROOT / controller) / "cxr-stack" / name / file: str(limit)
            for controller, file in _FILES[version].items()
            if (limit := limits[controller]) is not None
        }

    def make(self) -> None:
        """Make the groups, or keep those of the same container's last start."""
        for file, value in self._values.items():
            parent = file.parents[1]
            parent.mkdir(exist_ok=True)
            if (control := _ROOT / "cgroup.subtree_control").exists():
                for place in (control, parent / control.name):
                    place.write_text("+memory +pids", encoding="utf-8")
            file.parent.mkdir(exist_ok=True)
            file.write_text(value, encoding="utf-8")

    def enter(self) -> list[str]:
        """Shell commands that move the shell, and what it becomes, into the groups."""
        groups = sorted({str(file.parent) for file in self._values})
        return [f"echo 0 > {group}/cgroup.procs" for group in groups]

    def remove(self) -> None:
        """Delete the groups, once nothing runs in them."""
        for file in self._values:
            for group in (file.parent, file.parents[1]):
                with suppress(OSError):  # another container's is there, or this one is gone
                    group.rmdir()
