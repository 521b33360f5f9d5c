"""The child: it forks a process for each file, which answers with pixels or a rejection."""

import codecs
import gc
import importlib
import os
import resource
import signal
import socket
import struct
import sys
from typing import IO, NoReturn

import numpy as np
import numpy.typing as npt

from cxr_serving.images.dicom import confinement
from cxr_serving.images.dicom.decoding import decode
from cxr_serving.images.dicom.display import show
from cxr_serving.images.dicom.header import check, parse
from cxr_serving.images.dicom.rejection import REJECTIONS, Rejected, Rejection

# To the process: whether pixels are wanted, and the number of bytes that follow. From it: 0 or the
# number of a rejection, then height, width and stored bits; pixels follow where they are wanted.
REQUEST = struct.Struct("<?Q")
ANSWER = struct.Struct("<BIIB")

# What decoding imports when it is needed; a confined process cannot.
_MODULES = (
    "gdcm",
    "pydicom.datadict",
    "pydicom.encaps",
    "pydicom.filereader",
    "pydicom.pixels.decoders",
    "pydicom.pixels.utils",
    "PIL.Jpeg2KImagePlugin",
    "PIL.JpegImagePlugin",
)
_FILES = 16  # that a process may have open


def exactly(stream: IO[bytes], size: int) -> bytes:
    """Read ``size`` bytes.

    Raises:
        EOFError: there are fewer.
    """
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def serve(max_pixels: int, seconds: int, memory_bytes: int) -> None:
    """Fork a process for each pair of pipes that comes through standard input, a socket.

    It reads one request from the first pipe, and writes one answer to the second. The one before it
    is killed, so a file meets no process that another file could have changed. Standard output says
    in one line why these processes are not confined: an empty line where they are.
    """
    _limit(memory_bytes)
    prepare()
    unconfined = confinement.missing()
    os.write(1, f"{unconfined or ''}\n".encode())
    # Messages of libraries may name a patient.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    control = socket.socket(fileno=0)
    worker: int | None = None
    while True:
        _, pipes, _, _ = socket.recv_fds(control, 1, 2)
        if worker is not None:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
        if not pipes:
            return
        worker = os.fork()
        if not worker:
            _work(pipes[0], pipes[1], unconfined is None, max_pixels, seconds)
        for pipe in pipes:
            os.close(pipe)


def prepare() -> None:
    """Import all that decoding needs, so that no file is opened once there is an image."""
    for name in _MODULES:
        importlib.import_module(name)
    from PIL import Image
    from pydicom.charset import python_encoding

    Image.preinit()
    for encoding in python_encoding.values():
        codecs.lookup(encoding)
    # Otherwise collections would touch, and so copy, all memory that forked processes share.
    gc.collect()
    gc.freeze()


def _work(inbox: int, outbox: int, confined: bool, max_pixels: int, seconds: int) -> NoReturn:
    """Answer one request, and end; whatever fails, the answer is missing."""
    try:
        os.dup2(inbox, 0)  # in the place of the socket
        os.dup2(outbox, 3)
        os.closerange(4, _FILES)
        source, sink = os.fdopen(0, "rb"), os.fdopen(3, "wb")
        # The parent enforces the time; this ends a process whose parent was killed.
        for limit, value in {resource.RLIMIT_CPU: seconds + 1, resource.RLIMIT_NPROC: 0}.items():
            _set(limit, value)
        if confined:
            confinement.confine()
        wanted, size = REQUEST.unpack(exactly(source, REQUEST.size))
        sink.writelines(_answer(exactly(source, size), wanted, max_pixels))
        sink.flush()
    finally:
        os._exit(0)


def _limit(memory_bytes: int) -> None:
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_FSIZE, 0)
    _set(resource.RLIMIT_NOFILE, _FILES)
    if sys.platform == "linux":  # macOS has the name, but does not let it be set
        _set(resource.RLIMIT_AS, memory_bytes)


def _set(limit: int, value: int) -> None:
    """Set a limit to ``value``, or to that of the service itself where that is lower."""
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _answer(data: bytes, wanted: bool, max_pixels: int) -> tuple[bytes, memoryview]:
    try:
        if not wanted:
            return ANSWER.pack(0, *measure(data, max_pixels)), memoryview(b"")
        pixels = read(data, max_pixels)
        return ANSWER.pack(0, *pixels.shape, 8), pixels.data
    except Rejected as rejected:
        rejection = rejected.rejection
    except MemoryError:
        rejection = Rejection.MEMORY
    return ANSWER.pack(REJECTIONS.index(rejection) + 1, 0, 0, 0), memoryview(b"")


def measure(data: bytes, max_pixels: int) -> tuple[int, int, int]:
    """Height, width and stored bits of an image that is accepted; no pixel is decoded.

    Raises:
        Rejected: with the reason.
        MemoryError: there is not enough memory.
    """
    try:
        dataset, _ = parse(data)
        check(dataset, max_pixels)
        return dataset.Rows, dataset.Columns, dataset.BitsStored
    except (Rejected, MemoryError):
        raise
    except Exception as error:
        raise Rejected(Rejection.BROKEN) from error


def read(data: bytes, max_pixels: int) -> npt.NDArray[np.uint8]:
    """The grey levels of a file, uint8 [H, W].

    Raises:
        Rejected: with the reason.
        MemoryError: there is not enough memory.
    """
    try:
        dataset, syntax = parse(data)
        inverse = check(dataset, max_pixels)
        stored = decode(dataset, syntax)
        shown = show(dataset, stored, inverse)
    except (Rejected, MemoryError):
        raise
    except Exception as error:
        raise Rejected(Rejection.BROKEN) from error
    if shown.min() == shown.max():
        raise Rejected(Rejection.BLANK)
    return shown
