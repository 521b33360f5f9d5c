import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from radiographs import prepared

from cxr_assets.evaluation.removal import remove_absent
from cxr_assets.layout import Layout
from cxr_assets.learning import cache
from cxr_assets.progress import Progress, StorageError, held
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["read-only", "closed"])
def test_a_volume_of_root_is_given_to_the_user_by_the_command_in_the_message(
    mode: int, tmp_path: Path
) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    volume = tmp_path / "data"
    volume.mkdir(mode)

    def step() -> None:
        os.seteuid(1000)
        try:
            with held(volume / "raw" / ".lock", "something is done", print):
                (volume / "raw" / "image").touch()
        finally:
            os.seteuid(0)

    with pytest.raises(StorageError, match=rf"{volume}/raw: Permission denied") as error:
        step()
    command = re.search(r"chown -R 1000:\d+ \S+(?=,)", str(error.value))
    assert command, error.value
    assert os.system(command[0]) == 0
    step()
    assert (volume / "raw" / "image").exists()
