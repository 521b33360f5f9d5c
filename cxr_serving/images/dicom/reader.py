"""Decodes each DICOM image in a process of its own, which has few rights.

DICOM files are the least trusted input of the service: a large format, with decoders in C. A child
that has imported the decoders forks a process for the next image before it comes. That process
has no environment, tight limits and, where the system has seccomp, no files and no network. It
answers with a shape and that many grey pixels, or with the number of a message in ``rejection``: no
text of the file ever leaves it, because its tags name a patient. Then it ends, and with it all that
a file may have done to it.
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cxr_serving.images.container import Header
from cxr_serving.images.dicom.child import Child
from cxr_serving.images.dicom.rejection import DicomUnavailable, Rejection

_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer", npt.NDArray[np.uint8], Header)


class DicomReader:
    """Reads one image at a time; the child is started with the first image.

    A child that dies or hangs is killed; the next image starts a new one.

    Attributes:
        problem: why no image can be read at the moment; None once a child has started.
    """

    def __init__(self, max_pixels: int, seconds: float, memory_bytes: int) -> None:
        """Set the limits for one image.

        Args:
            max_pixels: images with more are rejected before pixels are decoded.
            seconds: wall-clock time for one image, without its wait for those before it.
            memory_bytes: address space of a process, which uses about 170 MB of it before the first
                image. Only Linux enforces it.
        """
        self._max_pixels = max_pixels
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._child: Child | None = None
        self.problem: str | None = "the process that decodes DICOM has not been started yet"

    def try_out(self) -> None:
        """Start a child to see that it starts, then end it: until the first image it is memory.

        Raises:
            DicomUnavailable: it does not start.
        """
        with self._lock:
            self._start()
            self._dismiss()

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
            return self._accepted(self._ask(Child.pixels, data))

    def header(self, data: bytes) -> Header:
        """Size and stored bits of an image; its pixels are not decoded.

        Any thread may call this; images wait for one another.

        Raises:
            UnsupportedImage, ImageTooLarge, UndecodableImage, DicomUnavailable: as :meth:`read`,
                as far as the elements say.
        """
        with self._lock:
            return self._accepted(self._ask(Child.header, data))

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
        self, question: Callable[[Child, bytes], _Answer | Rejection], data: bytes
    ) -> _Answer | Rejection:
        for _ in range(2):  # a process may end for another reason than its image: the next decides
            child = self._start()
            try:
                answer = question(child, data)
            except TimeoutError:
                _log.warning("the process that decodes DICOM is replaced: it took too long")
                self._dismiss()
                return Rejection.LATE
            except (OSError, EOFError):
                _log.warning("the process that decodes DICOM is replaced: it stopped")
                self._renew(child)
            except BaseException:
                self._dismiss()  # otherwise the next image would get the rest of this answer
                raise
            else:
                self._renew(child)
                return answer
        return Rejection.STOPPED

    def _renew(self, child: Child) -> None:
        try:
            child.renew()
        except OSError:  # the next image starts another
            self._dismiss()

    def _start(self) -> Child:
        if self._child is not None and self._child.ended:
            self._dismiss()
        if self._child is None:
            try:
                self._child = Child(self._max_pixels, self._seconds, self._memory_bytes)
            except (OSError, EOFError) as error:
                _log.error("the process that decodes DICOM does not start: %s", error)
                self.problem = "the process that decodes DICOM does not start; the log says why"
                raise DicomUnavailable(f"DICOM cannot be read now: {self.problem}") from error
            self.problem = None
        return self._child

    def _dismiss(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None
