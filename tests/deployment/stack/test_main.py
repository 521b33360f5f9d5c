import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.stack import __main__ as stack


def test_it_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(stack.StackError, match="sudo make stack"):
        stack._isolated()


def test_it_says_which_programs_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "ip" else name)
    with pytest.raises(stack.StackError, match="ip cannot be found: apt install"):
        stack._isolated()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces and mount")
@pytest.mark.skipif(not Path("/usr/lib/postgresql").exists(), reason="Postgres is not installed")
def test_sigterm_stops_what_has_started() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.stack", "--start"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "folders is up" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM
    (logs,) = [line.split()[-1] for line in lines if line.startswith("The logs are in")]
    shutil.rmtree(Path(logs).parent)
    assert any(line.startswith("prometheus has ended") for line in lines)
