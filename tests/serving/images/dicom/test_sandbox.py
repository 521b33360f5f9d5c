"""What the child process may do and know."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import dicoms
import pytest
from dicoms import dicom, grey


def test_warnings_of_libraries_are_dropped() -> None:
    # pydicom warns of such a character set, and quotes it.
    data = dicom(grey(), SpecificCharacterSet="ISO_IR 100")
    script = (
        "import sys\n"
        "from cxr_serving.images.dicom import DicomReader\n"
        "print(DicomReader(10**6, 20, 2**30).read(sys.stdin.buffer.read()).shape)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        input=data.replace(b"ISO_IR 100", dicoms.PATIENT.encode() + b"  "),
        capture_output=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == (b"(30, 40)\n", b"")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_child_ends_with_its_service() -> None:
    script = (
        "import os, subprocess, sys\n"
        "from cxr_serving.images.dicom import DicomReader\n"
        "DicomReader(10**6, 20, 2**30).read(sys.stdin.buffer.read())\n"
        "subprocess.run(['pgrep', '-P', str(os.getpid()), '-f', 'cxr_serving.images.dicom'])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        input=dicom(grey()),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    process = Path(f"/proc/{int(ended.stdout)}/stat")
    deadline = time.monotonic() + 20
    # A container without an init leaves it as a zombie.
    while process.exists() and ") Z " not in process.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
