"""Leaves a process no system calls but those that computing needs (Linux, seccomp).

What is not in the list fails with EPERM: no file can be opened or even looked up, no socket made,
no program started, no other process signalled. A process opens and imports before what it needs.
"""

import ctypes
import errno
import os
import socket
import struct
import sys

# Numbers on x86_64 (asm/unistd_64.h) and on aarch64 (asm-generic/unistd.h).
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # AUDIT_ARCH_*
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "gettid": (186, 178),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
}
# <linux/bpf_common.h>, <linux/seccomp.h>, <linux/prctl.h>
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4  # in struct seccomp_data
_KILL, _FAIL, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine() -> None:
    """Confine this process, which must have one thread; there is no way back.

    Raises:
        OSError: it cannot be done here; :func:`missing` says why.
    """
    instructions = _instructions(os.uname().machine)
    program = _Program(len(instructions) // 8, instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    # Without it only root may set a filter.
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(
        _SECCOMP, _FILTER, ctypes.byref(program), 0, 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def missing() -> str | None:
    """Why a process cannot be confined here; None where a trial process was, and felt it."""
    if sys.platform != "linux" or os.uname().machine not in _MACHINES:
        return f"there is no seccomp filter for {sys.platform} on {os.uname().machine}"
    trial = os.fork()
    if not trial:
        os._exit(_try())
    number = os.waitstatus_to_exitcode(os.waitpid(trial, 0)[1])
    if number < 0:
        return f"a process with a seccomp filter was ended by signal {-number}"
    return f"the kernel sets no seccomp filter: {os.strerror(number)}" if number else None


def _try() -> int:
    """0 where this process is confined now, or the number of an error."""
    try:
        confine()
    except OSError as error:
        return error.errno or errno.ENOSYS
    try:
        socket.socket().close()
    except PermissionError:
        return 0
    return errno.ENOSYS


def _instructions(machine: str) -> bytes:
    """The filter, in the machine language of BPF: struct sock_filter, 8 bytes each."""
    column, audited = _MACHINES[machine]
    numbers = [numbers[column] for numbers in _ALLOWED.values()]
    return b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD, 0, 0, _MACHINE_AT),
            (_EQUAL, 1, 0, audited),
            (_RETURN, 0, 0, _KILL),
            (_LOAD, 0, 0, _NUMBER_AT),
            *(
                (_EQUAL, left, 0, number)
                for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True)
            ),
            (_RETURN, 0, 0, _FAIL | errno.EPERM),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
