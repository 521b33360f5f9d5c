"""What the child process may do and know."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dicoms
import numpy as np
import pytest
from dicoms import compressed, dicom, grey, image, lossless, rle
from pydicom.charset import python_encoding
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr_serving.images.dicom import DicomReader, child, confinement


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
        "reader = DicomReader(10**6, 20, 2**30)\n"  # which ends its child as it is freed
        "reader.read(sys.stdin.buffer.read())\n"
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


def test_decoding_opens_no_file() -> None:
    """Confined, it could not; here nothing is confined, and every opened file is seen."""
    small = grey(8, np.uint8)
    files = [
        *(
            dicom(grey(), SpecificCharacterSet=name, PatientName="Doe", PatientID="1")
            for name in python_encoding
        ),
        dicom(grey(), DeflatedExplicitVRLittleEndian),
        compressed(grey(), RLELossless, rle(grey())),
        compressed(small, JPEGBaseline8Bit, image(small, "JPEG")),
        compressed(grey(), JPEG2000, image(grey(), "JPEG2000", no_jp2=True)),
        compressed(grey(), JPEGLosslessSV1, lossless(grey(), JPEGLosslessSV1)),
        compressed(grey(), JPEGLSLossless, lossless(grey(), JPEGLSLossless)),
    ]
    files += [file[: len(file) // 2] for file in files[-6:]]
    script = (
        "import json, sys\n"
        "from cxr_serving.images.dicom import sandbox\n"
        "sandbox.prepare()\n"
        "opened = []\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' or event == 'import':\n"
        "        opened.append(str(arguments[0]))\n"
        "files = [bytes.fromhex(file) for file in json.load(sys.stdin)]\n"
        "sys.addaudithook(hook)\n"
        "codes = [sandbox._answer(file, True, 10**6)[0][0] for file in files]\n"
        "print(json.dumps([codes, opened]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        input=json.dumps([file.hex() for file in files]),
        capture_output=True,
        text=True,
        check=True,
    )
    codes, opened = json.loads(ended.stdout)
    assert [bool(code) for code in codes] == [False] * (len(files) - 6) + [True] * 6
    assert opened == []


IMPORT = "import sys; sys.path += sys.argv[4:]\n"
SERVE = "from cxr_serving.images.dicom.sandbox import serve\nserve(*map(int, sys.argv[1:4]))\n"
# Instead of decoding, it tries what no decoder should, and reports it as pixels.
INTRUDER = """
import socket, numpy
from cxr_serving.images.dicom import sandbox
files = []
def denied(attempt):
    try:
        attempt()
    except PermissionError:
        return 1
    return 0
def read(data, max_pixels):
    files.append(data)
    return numpy.array([[
        denied(lambda: socket.socket().connect(("127.0.0.1", {port}))),
        denied(lambda: open({file!r})),
        len(files),
    ]], numpy.uint8)
sandbox.read = read
"""


@pytest.mark.skipif(confinement.missing() is not None, reason=f"{confinement.missing()}")
def test_decoders_reach_no_file_no_network_and_no_other_image(
    make_reader: Callable[..., DicomReader], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o666)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        intruder = INTRUDER.format(port=server.getsockname()[1], file=str(secret))
        monkeypatch.setattr(child, "_CHILD", IMPORT + intruder + SERVE)
        reader = make_reader()
        assert [reader.read(file).tolist() for file in (b"one", b"other")] == [[[1, 1, 1]]] * 2
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_child_that_cannot_be_confined_reads_and_says_so(
    make_reader: Callable[..., DicomReader],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_reader().read(dicom(grey()))
    assert ("DICOM decoders could open files" in caplog.text) == (confinement.missing() is not None)
    no_machine = "from cxr_serving.images.dicom import confinement\nconfinement._MACHINES.clear()\n"
    monkeypatch.setattr(child, "_CHILD", IMPORT + no_machine + SERVE)
    assert make_reader().read(dicom(grey())).shape == grey().shape
    assert "could open files and connections here: there is no seccomp filter" in caplog.text
