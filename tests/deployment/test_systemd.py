"""The units of deploy/systemd: systemd accepts them, and their programs their commands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from composition import ROOT, parse

from cxr_serving.http.settings import Settings

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
BIN = "/opt/cxr/.venv/bin/"


def directives(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def test_there_is_a_unit_for_each_process() -> None:
    assert [unit.stem for unit in UNITS] == [
        "cxr-code-location",
        "cxr-daemon",
        "cxr-serving",
        "cxr-webserver",
    ]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace(BIN, f"{Path(sys.executable).parent}/")
        (tmp_path / unit.name).write_text(text)

    def verify() -> str:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *tmp_path.glob("*.service")],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    assert verify() == ""
    with (tmp_path / UNITS[0].name).open("a") as unit:
        unit.write("\n[Service]\nProtectSystm=strict\n")
    assert "ProtectSystm" in verify()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_command_is_one_that_its_program_understands(unit: Path) -> None:
    [command] = directives(unit, "ExecStart")
    assert command.startswith(BIN)
    program, *arguments = command.removeprefix(BIN).replace("/opt/cxr", str(ROOT)).split()
    parse(program, arguments)
    assert directives(unit, "User") == ["cxr"]
    assert directives(unit, "NoNewPrivileges") == ["true"]
    assert directives(unit, "ProtectSystem") == ["strict"]


def test_the_service_sees_models_releases_and_metrics_alone() -> None:
    [unit] = [unit for unit in UNITS if unit.stem == "cxr-serving"]
    [root] = re.findall(r"CXR_DATA_ROOT=(\S+)", unit.read_text())
    assert directives(unit, "TemporaryFileSystem") == [root]
    assert directives(unit, "BindReadOnlyPaths") == [
        f"{root}/models {root}/releases {root}/metrics"
    ]
    assert directives(unit, "ReadWritePaths") == []
    [seconds] = directives(unit, "TimeoutStopSec")
    settings = Settings()
    assert float(seconds) > settings.notice_seconds + settings.drain_seconds
