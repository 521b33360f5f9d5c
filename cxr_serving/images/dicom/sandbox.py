"""The child process: it reads files, and answers with pixels or the number of a rejection."""

import math
import os
import resource
import struct
import sys
from typing import IO

import numpy as np
import numpy.typing as npt

from cxr_serving.images.dicom.decoding import decode
from cxr_serving.images.dicom.display import show
from cxr_serving.images.dicom.header import check, parse
from cxr_serving.images.dicom.rejection import REJECTIONS, Rejected, Rejection

READY = b"+"
# To the child: whether pixels are wanted, and the number of bytes that follow. From it: 0 or the
# number of a rejection, then height, width and stored bits; pixels follow where they are wanted.
REQUEST = struct.Struct("<?Q")
ANSWER = struct.Struct("<BIIB")


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
    """Answer requests until the input ends."""
    _confine(memory_bytes)
    # Before the clock of the first image runs.
    import gdcm  # noqa: F401
    import pydicom.pixels.decoders  # noqa: F401
    from PIL import Jpeg2KImagePlugin, JpegImagePlugin  # noqa: F401

    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Output of libraries is not an answer, and their messages may name a patient.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    outbox.write(READY)
    outbox.flush()
    while header := inbox.read(REQUEST.size):
        _allow(seconds)
        wanted, size = REQUEST.unpack(header)
        outbox.writelines(_answer(exactly(inbox, size), wanted, max_pixels))
        outbox.flush()


def _confine(memory_bytes: int) -> None:
    for limit, value in {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 16,
        resource.RLIMIT_NPROC: 0,
        # macOS has the name, but does not let it be set.
        **({resource.RLIMIT_AS: memory_bytes} if sys.platform == "linux" else {}),
    }.items():
        value = _at_most(limit, value)
        resource.setrlimit(limit, (value, value))


def _allow(seconds: int) -> None:
    # The parent enforces the time; this ends a child whose parent was killed.
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = math.ceil(used.ru_utime + used.ru_stime) + seconds + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (_at_most(resource.RLIMIT_CPU, allowed), hard))


def _at_most(limit: int, value: int) -> int:
    """``value``, or the limit of the service itself where that is lower."""
    _, hard = resource.getrlimit(limit)
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


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
