"""Locks of runs, held and lost by real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxr_assets import liveness
from cxr_assets.liveness import Lock

HOLD = """
import os, sys, time
from pathlib import Path
from cxr_assets.liveness import Lock
lock = Lock(Path(sys.argv[1]) / "run", {"uri": None})
if "fork" in sys.argv and os.fork() == 0:
    os.close(1)
    time.sleep(600)
print(os.getpid(), flush=True)
time.sleep(600)
"""
TAKE_MANY = """
import sys
from pathlib import Path
from cxr_assets.liveness import Lock
for number in range(2000):
    Lock(Path(sys.argv[1]) / f"{number}", {}).release()
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("more", [(), ("fork",)], ids=["alone", "with a child that lives on"])
def test_a_run_is_alive_until_its_process_is_killed(more, tmp_path: Path) -> None:
    process = start(HOLD, str(tmp_path), *more)
    assert process.stdout is not None
    process.stdout.readline()
    assert list(liveness.dead(tmp_path)) == []
    process.send_signal(signal.SIGSTOP)
    assert list(liveness.dead(tmp_path)) == [], "stopped is not dead"
    process.kill()
    process.wait()
    # A child that was just forked lets go of the lock a moment later.
    deadline = time.monotonic() + 30
    while not (found := list(liveness.dead(tmp_path))):
        assert time.monotonic() < deadline
    assert found == [(tmp_path / "run", {"uri": None})]
    for child in Path("/proc").glob("[0-9]*/cmdline"):
        if str(tmp_path).encode() in child.read_bytes():
            os.kill(int(child.parent.name), signal.SIGKILL)


def test_a_run_that_begins_or_ends_is_never_taken_for_dead(tmp_path: Path) -> None:
    process = start(TAKE_MANY, str(tmp_path))
    deadline = time.monotonic() + 60
    looks = 0
    while process.poll() is None:
        assert time.monotonic() < deadline
        assert list(liveness.dead(tmp_path)) == []
        looks += 1
    assert process.returncode == 0
    assert looks > 10


def test_it_holds_in_its_own_process_and_a_note_is_replaced(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "locks" / "run", {"status": "KILLED", "end_time": 1234567})
    assert list(liveness.dead(tmp_path / "locks")) == []
    lock.note({"status": "FAILED"})
    assert (tmp_path / "locks" / "run").read_text() == '{"status": "FAILED"}'
    lock.release()
    lock.release()
    assert list((tmp_path / "locks").iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"'])
def test_a_note_that_was_cut_off_is_of_the_dead_all_the_same(content, tmp_path: Path) -> None:
    (tmp_path / "run").write_text(content)
    assert list(liveness.dead(tmp_path)) == [(tmp_path / "run", {})]


def test_without_a_folder_nobody_is_dead(tmp_path: Path) -> None:
    assert list(liveness.dead(tmp_path / "absent")) == []
