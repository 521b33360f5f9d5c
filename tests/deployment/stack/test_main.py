import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.stack import __main__ as stack
from deploy.stack import composition, images


def starts(test: Callable[[], None]) -> Callable[[], None]:
    """A test that starts what docker-compose.yml describes."""
    for met, reason in (
        (os.geteuid() == 0, "only root may make namespaces and mount"),
        (Path("/usr/lib/postgresql").exists(), "Postgres is not installed"),
    ):
        test = pytest.mark.skipif(not met, reason=reason)(test)
    return test


def test_it_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(stack.StackError, match="sudo make stack"):
        stack._isolated()


def test_it_says_which_programs_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "ip" else name)
    with pytest.raises(stack.StackError, match="ip cannot be found: apt install"):
        stack._isolated()


@starts
def test_each_service_becomes_healthy_and_all_stop() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.stack", "--start", "--patience", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    described = composition.read(images.CHECKOUT / "docker-compose.yml", {})
    for name in described.services:
        assert f"{name} is up" in done.stdout or f"{name} is left out" in done.stdout, done.stdout
    for name in ("code-location", "daemon", "mlflow", "serving", "webserver"):
        assert f"{name} is up" in done.stdout, done.stdout


@starts
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
