"""Whether a process on another machine still waits for what it has started there.

It renews the time of a file on a file system that both see. The other side compares the times that
it reads with each other, never with a clock, so that no two clocks need agree.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Seconds between two renewals.
_RENEWAL = 5.0
# Seconds without one after which nobody waits any more.
PATIENCE = 30.0
# Seconds between two looks.
_LOOK = 1.0


@contextmanager
def renewed(path: Path) -> Iterator[None]:
    """Renew the time of a file as long as the body runs, and then delete it.

    Args:
        path: of the file, which exists.
    """
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEWAL):
            os.utime(path)

    thread = threading.Thread(target=renew, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


# Names the file in the processes of a job.
VARIABLE = "RETRAINING_JOB_ALIVE"


def watch_or_end() -> None:
    """End this process once nobody waits for its job; called as the process starts."""
    watch(Path(os.environ[VARIABLE]), lambda: os._exit(1))


def watch(path: Path, gone: Callable[[], None], patience: float = PATIENCE) -> None:
    """Call ``gone`` in a thread once the file is deleted, or was not renewed for ``patience``.

    Args:
        path: of the file.
        gone: called once.
        patience: seconds.
    """

    def look() -> None:
        seen, since = 0, time.monotonic()
        while time.monotonic() - since < patience:
            try:
                # Opened, because NFS asks the server then, and only then.
                with path.open("rb") as file:
                    renewal = os.fstat(file.fileno()).st_mtime_ns
            except FileNotFoundError:
                break
            except OSError:
                renewal = seen  # the file system does not answer: neither here nor gone
            if renewal != seen:
                seen, since = renewal, time.monotonic()
            time.sleep(_LOOK)
        gone()

    threading.Thread(target=look, name="watch", daemon=True).start()
