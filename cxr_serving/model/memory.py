"""Memory that was freed goes back to the system."""

import ctypes
import logging
import platform


def return_freed() -> None:
    """Make glibc return to the system what was freed in this process; takes milliseconds.

    Loading a network leaves free blocks between those in use, of up to half of its weights' size,
    which glibc would keep (malloc_trim(3)). Of other C libraries nothing is asked. If glibc cannot
    be asked, this is logged.
    """
    try:
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError) as error:
        logging.getLogger(__name__).warning("freed memory was not returned: %s", error)
