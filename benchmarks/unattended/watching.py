"""What a retraining leaves behind: processes, file handles, temporary and other files."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.unattended.pipeline import Pipeline


@dataclass(frozen=True)
class Measure:
    """What there is while no retraining runs.

    Attributes:
        processes: command by process id, of all that work on the data root.
        handles: open files by name of each process that stays.
        temporary: files in the temporary folder.
        locks: of runs that have not ended.
        disk: bytes of the data root.
    """

    processes: dict[int, str]
    handles: dict[str, int]
    temporary: int
    locks: int
    disk: int


def measure(pipeline: Pipeline, service: int) -> Measure:
    """Look at all of it.

    Args:
        pipeline: whose processes stay.
        service: process id of the service, which stays, too.
    """
    staying = {name: process.pid for name, process in pipeline.processes.items()}
    running = pipeline.root / "dagster/storage/running"
    return Measure(
        working(pipeline.layout.root),
        {
            name: len(list(Path(f"/proc/{pid}/fd").iterdir()))
            for name, pid in (*staying.items(), ("service", service))
        },
        sum(1 for _ in (pipeline.root / "tmp").rglob("*")),
        len(list(running.iterdir())) if running.exists() else 0,
        _size(pipeline.layout.root),
    )


def working(data_root: Path) -> dict[int, str]:
    """The processes whose environment names a data root, whoever their parent is."""
    marker = f"CXR_DATA_ROOT={data_root}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end meanwhile, or be another user's.
        with suppress(OSError):
            if marker in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().split(b"\0")
                found[int(folder.name)] = b" ".join(command[:4]).decode()
    return found


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total
