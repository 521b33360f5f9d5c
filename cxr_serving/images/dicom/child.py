"""The child process, seen from the service."""

import importlib.util
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from cxr_serving.images.container import Header
from cxr_serving.images.dicom.rejection import REJECTIONS, Rejection
from cxr_serving.images.dicom.sandbox import ANSWER, REQUEST, exactly

_log = logging.getLogger(__name__)

# Importing takes well under a second; on a machine that swaps it may take many.
_START_SECONDS = 60.0
# The child imports these and the standard library.
_PACKAGES = ("cxr_serving", "numpy", "PIL", "pydicom", "gdcm")
_CHILD = (
    "import sys; sys.path += sys.argv[4:]; "
    "from cxr_serving.images.dicom.sandbox import serve; serve(*map(int, sys.argv[1:4]))"
)


class Child:
    """A process that has imported all decoders, and forks another one for each image.

    The next process is there before its image: :meth:`renew` has it forked.
    """

    def __init__(self, max_pixels: int, seconds: float, memory_bytes: int) -> None:
        """Start it.

        Raises:
            EOFError: it ended, with this message.
            OSError: it does not start.
        """
        self._max_pixels = max_pixels
        self._seconds = seconds
        self._pipes: tuple[IO[bytes], IO[bytes]] | None = None
        limits = (max_pixels, math.ceil(seconds), memory_bytes)
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                # No environment, no current or user's folder, no site-packages: the folders that it
                # may import from are arguments.
                [sys.executable, "-I", "-S", "-B", "-c", _CHILD, *map(str, limits), *_folders()],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                # Closed by the child before it sees a file: messages of libraries quote the file.
                stderr=subprocess.PIPE,
                cwd="/",
                env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                # Ctrl-C in a terminal must reach the service alone, which finishes its requests
                # first; and the group is killed as one.
                start_new_session=True,
            )
        try:
            self._await_start()
            self.renew()
        except BaseException:
            self.stop()
            raise

    def _await_start(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        with self._process.stdout as said, self._process.stderr as errors:
            try:
                with self._within(_START_SECONDS):
                    unconfined = said.readline()
                    if not unconfined:
                        raise EOFError
            except TimeoutError:
                raise TimeoutError(f"not within {_START_SECONDS:g} s") from None
            except (OSError, EOFError):
                message = errors.read().decode(errors="replace").strip()
                raise EOFError(
                    message.rpartition("\n")[2] or "it ended without a message"
                ) from None
        if reason := unconfined.decode().strip():
            _log.warning("DICOM decoders could open files and connections here: %s", reason)

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def renew(self) -> None:
        """End the process of the last image, and have that of the next one forked.

        Raises:
            OSError: the child is dead.
        """
        self._close_pipes()
        theirs_in, to = os.pipe()
        from_, theirs_out = os.pipe()
        self._pipes = os.fdopen(to, "wb"), os.fdopen(from_, "rb")
        try:
            socket.send_fds(self._control, [b"+"], [theirs_in, theirs_out])
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    def pixels(self, dataset: bytes) -> "npt.NDArray[np.uint8] | Rejection":
        """Have an image decoded.

        Raises:
            TimeoutError: it took too long, and the child was killed.
            EOFError: the process ended, or its answer is invalid.
            OSError: the process ended.
        """
        with self._within(self._seconds):
            found, source = self._ask(dataset, wanted=True)
            if isinstance(found, Rejection):
                return found
            pixels = np.frombuffer(exactly(source, found.height * found.width), np.uint8)
        grey: npt.NDArray[np.uint8] = pixels.reshape(found.height, found.width)
        return grey

    def header(self, dataset: bytes) -> "Header | Rejection":
        """Have the elements of an image read; raises as :meth:`pixels`."""
        with self._within(self._seconds):
            return self._ask(dataset, wanted=False)[0]

    def _ask(self, dataset: bytes, wanted: bool) -> tuple["Header | Rejection", IO[bytes]]:
        assert self._pipes is not None
        sink, source = self._pipes
        sink.write(REQUEST.pack(wanted, len(dataset)))
        sink.write(dataset)
        sink.flush()
        code, height, width, bits = ANSWER.unpack(exactly(source, ANSWER.size))
        if code:
            if code > len(REJECTIONS):
                raise EOFError
            return REJECTIONS[code - 1], source
        if not 0 < height * width <= self._max_pixels:
            raise EOFError
        return Header(width, height, bits), source

    def stop(self) -> None:
        """Kill it, and the process that it has forked."""
        self._kill()
        self._close_pipes()
        self._control.close()
        self._process.wait()

    def _close_pipes(self) -> None:
        if self._pipes is not None:
            for pipe in self._pipes:
                with suppress(OSError):  # closing flushes what was not taken
                    pipe.close()
            self._pipes = None

    def _kill(self) -> None:
        if not self.ended:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        # Death ends every wait for the child, even in the middle of a write to it.
        late = threading.Event()

        def kill() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, EOFError) as error:
            raise TimeoutError if late.is_set() else error from None
        finally:
            timer.cancel()


def _folders() -> list[str]:
    """Where this process finds what the child imports, in the order in which it looks there.

    So a child runs wherever its service does, installed or not, and imports the same.
    """
    found: dict[str, None] = {}
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            is_package = spec.submodule_search_locations is not None
            found[str(Path(spec.origin).absolute().parents[is_package])] = None
    order = {folder: place for place, folder in reversed([*enumerate(sys.path)])}
    return sorted(found, key=lambda folder: order.get(folder, len(order)))
