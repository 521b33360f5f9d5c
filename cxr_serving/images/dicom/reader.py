"""Decodes DICOM images in a child process with few rights, which is replaced when it fails.

DICOM files are the least trusted input of the service: a large format, with decoders in C. The
child has no environment, tight limits and nothing to write to. It answers with a shape and that
many grey pixels, or with the number of a message in ``rejection``: no text of the file ever leaves
the child, because its tags name a patient.
"""

import importlib.util
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cxr_serving.images.container import Header
from cxr_serving.images.dicom.rejection import REJECTIONS, DicomUnavailable, Rejection
from cxr_serving.images.dicom.sandbox import ANSWER, READY, REQUEST, exactly

_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer", npt.NDArray[np.uint8], Header)

# Importing takes well under a second; on a machine that swaps it may take many.
_START_SECONDS = 60.0
# The child imports these and the standard library.
_PACKAGES = ("cxr_serving", "numpy", "PIL", "pydicom", "gdcm")
_CHILD = (
    "import sys; sys.path += sys.argv[4:]; "
    "from cxr_serving.images.dicom.sandbox import serve; serve(*map(int, sys.argv[1:4]))"
)


class DicomReader:
    """Reads one image at a time in a child process, started with the first image at the latest.

    A child that dies, hangs or sends an invalid answer is killed; the next image starts a new one.

    Attributes:
        problem: why no image can be read at the moment; None while a child runs.
    """

    def __init__(self, max_pixels: int, seconds: float, memory_bytes: int) -> None:
        """Set the limits for one image.

        Args:
            max_pixels: images with more are rejected before pixels are decoded.
            seconds: wall-clock time for one image, without its wait for those before it.
            memory_bytes: address space of the child, which uses about 170 MB of it before the first
                image. Only Linux enforces it.
        """
        self._max_pixels = max_pixels
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self.problem: str | None = "the process that decodes DICOM has not been started yet"

    def start(self) -> None:
        """Start the child, if none runs.

        Raises:
            DicomUnavailable: it does not start.
        """
        with self._lock:
            self._start()

    def read(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Decode an image as viewers show it at first: bone bright, the first window applied.

        Any thread may call this; images wait for one another.

        Args:
            data: a DICOM file with one grey frame of a radiograph.

        Returns:
            uint8 [H, W].

        Raises:
            UnsupportedImage: a kind of DICOM file that is not accepted.
            ImageTooLarge: more than ``max_pixels`` pixels, or more than ``memory_bytes`` to decode.
            UndecodableImage: broken, blank, or too slow to decode.
            DicomUnavailable: the child does not start, which is not the fault of the file.
        """
        with self._lock:
            return self._accepted(self._ask(_Worker.pixels, data))

    def header(self, data: bytes) -> Header:
        """Size and stored bits of an image; its pixels are not decoded.

        Any thread may call this; images wait for one another.

        Raises:
            UnsupportedImage, ImageTooLarge, UndecodableImage, DicomUnavailable: as :meth:`read`,
                as far as the elements say.
        """
        with self._lock:
            return self._accepted(self._ask(_Worker.header, data))

    def _accepted(self, answer: _Answer | Rejection) -> _Answer:
        if isinstance(answer, Rejection):
            kind, text = answer.value
            raise kind(text.format(max_pixels=self._max_pixels, seconds=self._seconds))
        return answer

    def close(self) -> None:
        """End the child, after the image that it is decoding."""
        with self._lock:
            self._dismiss()

    def _ask(
        self, question: Callable[["_Worker", bytes], _Answer | Rejection], data: bytes
    ) -> _Answer | Rejection:
        while True:
            fresh = self._worker is None
            worker = self._start()
            try:
                answer = question(worker, data)
            except TimeoutError:
                answer = Rejection.LATE
            except (OSError, EOFError):
                answer = Rejection.STOPPED
            except BaseException:
                self._dismiss()  # otherwise the next image would get the rest of this answer
                raise
            if (
                answer is not Rejection.LATE
                and answer is not Rejection.STOPPED
                and answer is not Rejection.MEMORY
            ):
                return answer
            _log.warning("the process that decodes DICOM is replaced: %s", answer.name.lower())
            self._dismiss()
            # An older child may have failed for another reason than this image: a new one decides.
            if fresh or answer is Rejection.LATE:
                return answer

    def _start(self) -> "_Worker":
        if self._worker is None:
            try:
                self._worker = _Worker(self._max_pixels, self._seconds, self._memory_bytes)
            except (OSError, EOFError) as error:
                _log.error("the process that decodes DICOM does not start: %s", error)
                self.problem = "the process that decodes DICOM does not start; the log says why"
                raise DicomUnavailable(f"DICOM cannot be read now: {self.problem}") from error
            self.problem = None
        return self._worker

    def _dismiss(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


class _Worker:
    """A child process, seen from its parent."""

    def __init__(self, max_pixels: int, seconds: float, memory_bytes: int) -> None:
        self._max_pixels = max_pixels
        self._seconds = seconds
        limits = (max_pixels, math.ceil(seconds), memory_bytes)
        self._process = subprocess.Popen(  # noqa: S603
            # No environment, no current or user's folder, no site-packages: the folders that it may
            # import from are arguments.
            [sys.executable, "-I", "-S", "-B", "-c", _CHILD, *map(str, limits), *_folders()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Closed by the child before it sees a file: messages of libraries quote the file.
            stderr=subprocess.PIPE,
            cwd="/",
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            # Ctrl-C in a terminal must reach the service alone, which finishes its requests first.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        with self._process.stderr as errors:
            try:
                with self._within(_START_SECONDS):
                    exactly(self._from, len(READY))
            except TimeoutError:
                self.stop()
                raise TimeoutError(f"not within {_START_SECONDS:g} s") from None
            except (OSError, EOFError):
                self.stop()
                message = errors.read().decode(errors="replace").strip()
                raise EOFError(
                    message.rpartition("\n")[2] or "it ended without a message"
                ) from None
            except BaseException:
                self.stop()
                raise

    def pixels(self, dataset: bytes) -> "npt.NDArray[np.uint8] | Rejection":
        """Have an image decoded.

        Raises:
            TimeoutError: it took too long, and the child was killed.
            EOFError: the child is dead, or its answer is invalid.
            OSError: the child is dead.
        """
        with self._within(self._seconds):
            found = self._ask(dataset, wanted=True)
            if isinstance(found, Rejection):
                return found
            pixels = np.frombuffer(exactly(self._from, found.height * found.width), np.uint8)
        grey: npt.NDArray[np.uint8] = pixels.reshape(found.height, found.width)
        return grey

    def header(self, dataset: bytes) -> "Header | Rejection":
        """Have the elements of an image read; raises as :meth:`pixels`."""
        with self._within(self._seconds):
            return self._ask(dataset, wanted=False)

    def _ask(self, dataset: bytes, wanted: bool) -> "Header | Rejection":
        self._to.write(REQUEST.pack(wanted, len(dataset)))
        self._to.write(dataset)
        self._to.flush()
        code, height, width, bits = ANSWER.unpack(exactly(self._from, ANSWER.size))
        if code:
            if code > len(REJECTIONS):
                raise EOFError
            rejection: Rejection = REJECTIONS[code - 1]
            return rejection
        if not 0 < height * width <= self._max_pixels:
            raise EOFError
        return Header(width, height, bits)

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
