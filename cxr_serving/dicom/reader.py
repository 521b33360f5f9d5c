"""Reads DICOM films, in a process of their own that can do little and is easily replaced.

A DICOM file is the least trusted thing that the service takes: a large format, with decoders in C
behind it. It is decoded in a child process with no environment, few limits to push and nothing to
write to. What comes back is a shape and that many grey pixels, or the number of one of the
sentences below: no word of the file ever leaves the child, because its tags name a patient.
"""

import logging
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt

from cxr_serving.dicom.rejection import REJECTIONS, Rejection
from cxr_serving.dicom.sandbox import ANSWER, READY, REQUEST, exactly

_log = logging.getLogger(__name__)

# Importing takes well under a second; on a machine that swaps it may take many.
_START_SECONDS = 60.0
_CHILD = "import sys; from cxr_serving.dicom.sandbox import serve; serve(*map(int, sys.argv[1:]))"


class DicomReader:
    """Reads one film at a time in a child process, which starts with the first film.

    A child that dies, hangs or answers nonsense is killed, and the next film finds a new one.
    """

    def __init__(self, max_pixels: int, seconds: float, memory_bytes: int) -> None:
        """Set what a film may take.

        Args:
            max_pixels: films with more are refused before pixels are decoded.
            seconds: wall-clock time of one film, not counting its wait for those before it.
            memory_bytes: address space of the child, of which it takes about 170 MB before the
                first film. Only Linux holds a process to it.
        """
        self._max_pixels = max_pixels
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    def read(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Decode a film to what a viewer shows at first: bone bright, the first window applied.

        Any thread may call this; films wait for one another.

        Args:
            data: a DICOM file with one grey frame of a radiograph.

        Returns:
            uint8 [H, W].

        Raises:
            UnsupportedFilm: a kind of DICOM file that is not accepted.
            FilmTooLarge: more than ``max_pixels`` pixels, or more than ``memory_bytes`` to decode.
            UndecodableFilm: broken, not shown by its own window, or too slow to decode.
        """
        with self._lock:
            answer = self._ask(data)
        if isinstance(answer, Rejection):
            kind, text = answer.value
            raise kind(text.format(max_pixels=self._max_pixels, seconds=self._seconds))
        return answer

    def close(self) -> None:
        """End the child, after the film that it is at."""
        with self._lock:
            self._dismiss()

    def _ask(self, data: bytes) -> "npt.NDArray[np.uint8] | Rejection":
        while True:
            fresh = self._worker is None
            try:
                if self._worker is None:
                    self._worker = _Worker(self._max_pixels, self._seconds, self._memory_bytes)
            except (OSError, EOFError):
                _log.error(
                    "the process that decodes DICOM does not start: is the extra `dicom` "
                    "installed, and memory left for it?"
                )
                return Rejection.STOPPED
            try:
                answer = self._worker.ask(data)
            except TimeoutError:
                answer = Rejection.LATE
            except (OSError, EOFError):
                answer = Rejection.STOPPED
            except BaseException:
                self._dismiss()  # or the next film would get what is left of this one
                raise
            if (
                answer is not Rejection.LATE
                and answer is not Rejection.STOPPED
                and answer is not Rejection.MEMORY
            ):
                return answer
            _log.warning("the process that decodes DICOM is replaced: %s", answer.name.lower())
            self._dismiss()
            # What else an older child met may not be this film's doing; a new one decides.
            if fresh or answer is Rejection.LATE:
                return answer

    def _dismiss(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


class _Worker:
    """The parent's end of a child."""

    def __init__(self, max_pixels: int, seconds: float, memory_bytes: int) -> None:
        self._max_pixels = max_pixels
        self._seconds = seconds
        limits = (max_pixels, math.ceil(seconds), memory_bytes)
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-B", "-c", _CHILD, *map(str, limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Where libraries complain, and quote what they complain about.
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            # Ctrl-C in a terminal is for the service, which finishes its films first.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        try:
            with self._within(_START_SECONDS):
                exactly(self._from, len(READY))
        except BaseException:
            self.stop()
            raise

    def ask(self, film: bytes) -> "npt.NDArray[np.uint8] | Rejection":
        """Have a film decoded.

        Raises:
            TimeoutError: it took too long, and the child was killed.
            EOFError: the child is dead, or talks nonsense.
            OSError: the child is dead.
        """
        with self._within(self._seconds):
            self._to.write(REQUEST.pack(len(film)))
            self._to.write(film)
            self._to.flush()
            code, height, width = ANSWER.unpack(exactly(self._from, ANSWER.size))
            if code:
                if code > len(REJECTIONS):
                    raise EOFError
                refusal: Rejection = REJECTIONS[code - 1]
                return refusal
            if not 0 < height * width <= self._max_pixels:
                raise EOFError
            pixels = np.frombuffer(exactly(self._from, height * width), np.uint8)
        grey: npt.NDArray[np.uint8] = pixels.reshape(height, width)
        return grey

    def stop(self) -> None:
        """Kill the child."""
        self._process.kill()
        with suppress(OSError):  # closing flushes what it did not take
            self._to.close()
        self._from.close()
        self._process.wait()

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        # Death ends every wait for the child, even in the middle of a write to it.
        late = threading.Event()

        def kill() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, EOFError) as error:
            raise TimeoutError if late.is_set() else error from None
        finally:
            timer.cancel()
