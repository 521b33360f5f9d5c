"""What a retraining leaves behind: processes, file handles, temporary and other files."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.unattended.pipeline import Pipeline

# Folders below the root of a pipeline, and what they hold.
ROOT = "data root"
_PARTS = {"data": ROOT, "dagster": "Dagster", "mlflow": "MLflow"}
_ELSE = "logs"
# Of the data root, once as many versions are kept as ever: histories and decisions stay.
_GROWTH = 1.1
# Most bytes that a retraining adds to what stays: logs, Dagster's records, MLflow's checkpoint.
_RECORDS = 16 << 20


@dataclass(frozen=True)
class Measure:
    """What there is while no retraining runs.

    Attributes:
        processes: command by process id, of all that work on the data root.
        handles: open files by name of each process that stays.
        temporary: files in the temporary folder.
        locks: of runs that have not ended.
        disk: bytes of the data root, of the records of Dagster and MLflow, and of all else.
    """

    processes: dict[int, str]
    handles: dict[str, int]
    temporary: int
    locks: int
    disk: dict[str, int]


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
        sizes(pipeline.root),
    )


def flat(measures: Sequence[Measure], say: Callable[[str], None]) -> list[str]:
    """The data root must not grow, and records, of which there are some of each run, little.

    Args:
        measures: one after each retraining, once as many versions are kept as ever.
        say: takes a line.

    Returns:
        What grows more than it should.
    """
    breaches = []
    for part in measures[0].disk if measures else ():
        first, last = measures[0].disk[part], measures[-1].disk[part]
        if part == ROOT:
            if last > _GROWTH * first:
                breaches.append(f"the {part} has grown from {first:,} to {last:,} bytes")
            continue
        each = (last - first) / max(len(measures) - 1, 1)
        say(f"{part}: {each / 2**20:.2f} MiB more with each retraining")
        if each > _RECORDS:
            breaches.append(f"{part} grows by {each:,.0f} bytes with each retraining")
    return breaches


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


def sizes(root: Path) -> dict[str, int]:
    """Bytes below the root of a pipeline, by what they are."""
    sizes = dict.fromkeys((*_PARTS.values(), _ELSE), 0)
    for path in root.rglob("*"):
        with suppress(FileNotFoundError):
            sizes[_PARTS.get(path.relative_to(root).parts[0], _ELSE)] += path.lstat().st_size
    return sizes
