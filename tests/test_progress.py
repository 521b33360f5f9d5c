from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from radiographs import prepared

from cxr_assets.evaluation.removal import remove_absent
from cxr_assets.layout import Layout
from cxr_assets.learning import cache
from cxr_assets.progress import Progress, held
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.naming import KAGGLE_CLASSES
from cxr_assets.radiographs.preparation import prepare


def waiting(path: Path, step: Callable[[Progress], object]) -> list[str]:
    """What a step reports while another process, until then, holds a lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    lock.acquire()
    lines: list[str] = []

    def progress(line: str) -> None:
        lines.append(line)
        lock.release()

    step(progress)
    return [line for line in lines if "waiting for" in line]


def test_a_free_lock_is_taken_in_silence_and_given_back(tmp_path: Path) -> None:
    lines: list[str] = []
    path = tmp_path / "new" / ".lock"
    with held(path, "something is done", lines.append):
        assert waiting_for(path)
    assert not waiting_for(path)
    assert not lines


def waiting_for(path: Path) -> bool:
    """Whether somebody who came now would wait."""
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except TimeoutError:
        return True
    lock.release()
    return False


def test_whoever_waits_for_another_process_says_so(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    data = prepared.data(prepared.twelve_patients(tmp_path / "source"))
    steps: dict[Path, Callable[[Progress], object]] = {
        layout.raw_lock: lambda line: raw.collect(data, KAGGLE_CLASSES, layout, line),
        layout.processed_lock: lambda line: prepare(
            layout, raw.read(layout), data, KAGGLE_CLASSES, line
        ),
        layout.embeddings_lock: lambda line: cache.retain(layout, lambda image: True, line),
        layout.reports_lock: lambda line: remove_absent(layout, line),
    }
    for path, step in steps.items():
        [line] = waiting(path, step)
        assert line.endswith(f"in another process: waiting for {path}")
