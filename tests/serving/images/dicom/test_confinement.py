"""What a confined process can still do, tried in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_serving.images.dicom import confinement
from cxr_serving.images.dicom.confinement import missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"here {missing()}")

# Each prints the error that it met, or that it met none.
ATTEMPTS = {
    "a file": "open('/etc/passwd')",
    "its own code": "open(confinement.__file__)",
    "a look at a file": "os.stat('/')",
    "a folder": "os.listdir('/')",
    "a new file": "os.open('/tmp/confined', os.O_CREAT | os.O_WRONLY)",
    "the end of a file": "os.unlink('/tmp/confined')",
    "the memory of its parent": "open(f'/proc/{parent}/mem', 'rb')",
    "a connection": "socket.socket().connect(('127.0.0.1', 9))",
    "a datagram": "socket.socket(type=socket.SOCK_DGRAM)",
    "a local socket": "socket.socket(socket.AF_UNIX)",
    "a pair of sockets": "socket.socketpair()",
    "a name": "socket.getaddrinfo('localhost', 80)",
    "a program": "os.execv('/bin/true', ['true'])",
    "a process": "os.fork()",
    "a thread": "threading.Thread(target=print).start()",
    "a signal to its parent": "os.kill(parent, 9)",
    "a limit of its parent": "resource.prlimit(parent, resource.RLIMIT_NOFILE, (0, 0))",
}
SCRIPT = """
import os, resource, socket, sys, threading
from cxr_serving.images.dicom import confinement
parent, attempts = os.getppid(), {attempts!r}
attempts = [compile(attempt, 'attempt', 'eval') for attempt in attempts]
confinement.confine()
for attempt in attempts:
    try:
        eval(attempt)
    except Exception as error:
        print(type(error).__name__)
    else:
        print('allowed')
sys.stdout.flush()
os._exit(0)
"""


def test_files_network_and_processes_are_out_of_reach() -> None:
    script = SCRIPT.format(attempts=list(ATTEMPTS.values()))
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    met = dict(zip(ATTEMPTS, ended.stdout.split(), strict=True))
    assert met.pop("a thread") == "RuntimeError"
    assert met.pop("a name") == "LookupError"  # its encoding is not imported
    assert set(met.values()) == {"PermissionError"}, met


def test_a_system_call_of_another_machine_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = confinement._MACHINES["aarch64" if os.uname().machine == "x86_64" else "x86_64"]
    monkeypatch.setitem(confinement._MACHINES, os.uname().machine, other)
    assert missing() == "a process with a seccomp filter was ended by signal 31"


@pytest.mark.parametrize(
    ("headers", "column"),
    [("x86_64-linux-gnu/asm/unistd_64.h", 0), ("asm-generic/unistd.h", 1)],
)
def test_numbers_are_those_of_the_kernel(headers: str, column: int) -> None:
    file = Path("/usr/include") / headers
    if not file.exists():
        pytest.skip(f"no {file}: install linux-libc-dev")
    defined = dict(
        line.split()[1:3]
        for line in file.read_text().splitlines()
        if line.startswith("#define __NR")
    )

    def number(name: str) -> int:
        found = defined[f"__NR_{name}"]
        return int(defined.get(found, found))

    ours = {name: numbers[column] for name, numbers in confinement._ALLOWED.items()}
    assert ours == {name: number(name) for name in ours}


def test_a_machine_without_a_filter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.uname_result((*os.uname()[:4], "riscv64"))
    monkeypatch.setattr(os, "uname", lambda: machine)
    assert missing() == "there is no seccomp filter for linux on riscv64"
