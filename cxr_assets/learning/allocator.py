"""The C library's memory allocator."""

import ctypes
import logging
import platform

# Parameters of mallopt(3).
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, in this process, rather than give it back to the system.

    The tensors of a training step on a CPU are so large that each is taken from the system and
    given back, page by page, in every step; that is about a tenth of the step. Other C libraries
    are left as they are, and so is one that cannot be reached.
    """
    try:
        if platform.libc_ver()[0] == "glibc":
            glibc = ctypes.CDLL(None)
            glibc.mallopt(_MMAP_THRESHOLD, 2**30)
            glibc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError) as error:
        logging.getLogger(__name__).warning("the allocator is left as it is: %s", error)
