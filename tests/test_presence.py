import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cxr_assets import presence

# Seconds: a renewal, and how long to wait for the next one.
OFTEN, PATIENCE = 0.05, 1.0


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(presence, "_RENEWAL", OFTEN)
    monkeypatch.setattr(presence, "_LOOK", OFTEN)
    path = tmp_path / "alive"
    path.touch()
    return path


def test_whoever_waits_is_here_until_it_ends_and_gone_at_once_then(file: Path) -> None:
    gone = threading.Event()
    with presence.renewed(file):
        presence.watch(file, gone.set, PATIENCE)
        assert not gone.wait(3 * PATIENCE)
    assert not file.exists()
    assert gone.wait(30)


def test_whoever_is_killed_is_gone_after_a_while_whatever_the_clock_says(file: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from cxr_assets import presence
presence._RENEWAL = {OFTEN}
with presence.renewed(Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(600)
"""
    other = subprocess.Popen([sys.executable, "-c", code, file], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"here\n"
    gone = threading.Event()
    presence.watch(file, gone.set, PATIENCE)
    other.kill()
    other.wait()
    os.utime(file, (2**32, 2**32))
    assert gone.wait(30)
    assert file.exists()
