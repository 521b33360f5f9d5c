"""Reads DICOM films, in a process of their own that can do little and is easily replaced.

A DICOM file is the least trusted thing that the service takes: a large format, with decoders in C
behind it. It is decoded in a child process with no environment, few limits to push and nothing to
write to. What comes back is a shape and that many grey pixels, or the number of one of the
sentences below: no word of the file ever leaves the child, because its tags name a patient.
"""

import io
import logging
import math
import os
import resource
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cxr_serving.preprocessing import FilmTooLarge, UndecodableFilm, UnsupportedFilm

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_log = logging.getLogger(__name__)

_MAGIC = slice(128, 132)
# Importing takes well under a second; on a machine that swaps it may take many.
_START_SECONDS = 60.0
_READY = b"+"
# To the child: bytes that follow. From it: 0 or the number of a refusal, then height and width.
_REQUEST = struct.Struct("<Q")
_ANSWER = struct.Struct("<BII")

# Transfer syntaxes, each with the pydicom plugin that decodes it. All plugins are part of pydicom
# (MIT) or call Pillow (MIT-CMU) or GDCM (BSD-3). Left out: Deflated, which inflates before anything
# can be checked, and big endian, which is retired.
_SYNTAXES: Mapping[str, str] = {
    "1.2.840.10008.1.2": "",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1": "",  # Explicit VR Little Endian
    "1.2.840.10008.1.2.5": "pydicom",  # RLE Lossless
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG Baseline, 8 bits
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "gdcm",  # JPEG-LS, lossless only
    "1.2.840.10008.1.2.4.81": "gdcm",  # JPEG-LS
    "1.2.840.10008.1.2.4.90": "pillow",  # JPEG 2000, lossless only
    "1.2.840.10008.1.2.4.91": "pillow",  # JPEG 2000
}
# Second bytes of the markers of JPEG Lossless and JPEG-LS: what begins a frame, and what else may
# come before its scan, tables, restart interval, applications' own, comment and LS parameters.
_FRAMES = (0xC3, 0xF7)
_SEGMENTS = (*_FRAMES, 0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE, 0xF8)
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# Precision, height, width and number of components, then the only component.
_FRAME = struct.Struct(">BHHB3x")
# Projection radiography, which chest films are labelled with: computed and digital, spot films of
# fluoroscopy, digitised film, and DR, which is no term of the standard but what some devices write.
# XA, MG, PX and IO are projections of something else; CT, MR, US and SR are no radiographs at all.
_MODALITIES = ("CR", "DX", "DR", "RF", "RG")
# The only elements that are kept when a file is parsed.
_KEYWORDS = (
    "Modality",
    "PresentationIntentType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "PixelData",
)
# Parsing an element takes one read to three; radiographs have a few hundred elements.
_READS = 15_000
# A whole look-up table of 16 bits takes 128 KiB, and a film may offer several.
_SEQUENCE_BYTES = 2**20


class _Refusal(Enum):
    """Why a film is not read, in all the words that are ever said about one."""

    PREAMBLE = (
        UnsupportedFilm,
        "the DICOM file begins as a file of another format; its first 128 bytes must be zero",
    )
    SYNTAX = (
        UnsupportedFilm,
        "the DICOM file's transfer syntax is not read; save it as Implicit or Explicit VR Little "
        "Endian, RLE Lossless, JPEG Baseline, JPEG Lossless, JPEG-LS or JPEG 2000",
    )
    MODALITY = (
        UnsupportedFilm,
        f"the DICOM file is not a radiograph: Modality must be one of {', '.join(_MODALITIES)}",
    )
    INTENT = (
        UnsupportedFilm,
        "the DICOM file holds raw detector values; send the image that is FOR PRESENTATION",
    )
    FRAMES = UnsupportedFilm, "the DICOM file has several frames; send one film"
    COLOUR = (
        UnsupportedFilm,
        "the DICOM file is not a grey film: Photometric Interpretation must be MONOCHROME1 or "
        "MONOCHROME2, with one sample per pixel",
    )
    POLARITY = (
        UnsupportedFilm,
        "the DICOM file contradicts itself: Photometric Interpretation and Presentation LUT Shape "
        "do not agree on what is white",
    )
    BITS = (
        UnsupportedFilm,
        "the DICOM file's pixels are not read: Bits Allocated must be 8 or 16, and the lowest Bits "
        "Stored of them used",
    )
    SHADING = (
        UndecodableFilm,
        "the DICOM film cannot be shown: its rescale, window or look-up table is not valid",
    )
    BLANK = UndecodableFilm, "the DICOM film is blank: all pixels are shown in the same grey"
    ELEMENTS = UndecodableFilm, "the DICOM file has too many or too large elements for a radiograph"
    BROKEN = UndecodableFilm, "the DICOM file is broken, or its sequences are nested too deeply"
    # pydicom does not say which: it makes one error of all that goes wrong in a decoder.
    PIXELS = (
        UndecodableFilm,
        "the pixels of the DICOM film are missing, truncated or broken, or take too much memory",
    )
    AREA = FilmTooLarge, "the DICOM film has more than {max_pixels:,} pixels, the most decoded"
    MEMORY = FilmTooLarge, "the DICOM film needs more memory than one film is given"
    LATE = UndecodableFilm, "the DICOM film took longer than {seconds:g} s to read"
    STOPPED = UndecodableFilm, "the DICOM film could not be read: its decoder stopped"


_REFUSALS = tuple(_Refusal)


def is_dicom(data: bytes) -> bool:
    """Whether ``data`` begins as a DICOM file of part 10 of the standard does."""
    return data[_MAGIC] == b"DICM"


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
        if isinstance(answer, _Refusal):
            kind, text = answer.value
            raise kind(text.format(max_pixels=self._max_pixels, seconds=self._seconds))
        return answer

    def close(self) -> None:
        """End the child, after the film that it is at."""
        with self._lock:
            self._dismiss()

    def _ask(self, data: bytes) -> "npt.NDArray[np.uint8] | _Refusal":
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
                return _Refusal.STOPPED
            try:
                answer = self._worker.ask(data)
            except TimeoutError:
                answer = _Refusal.LATE
            except (OSError, EOFError):
                answer = _Refusal.STOPPED
            except BaseException:
                self._dismiss()  # or the next film would get what is left of this one
                raise
            if (
                answer is not _Refusal.LATE
                and answer is not _Refusal.STOPPED
                and answer is not _Refusal.MEMORY
            ):
                return answer
            _log.warning("the process that decodes DICOM is replaced: %s", answer.name.lower())
            self._dismiss()
            # What else an older child met may not be this film's doing; a new one decides.
            if fresh or answer is _Refusal.LATE:
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
            [sys.executable, "-I", "-B", "-m", __name__, *map(str, limits)],
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
                _exactly(self._from, len(_READY))
        except BaseException:
            self.stop()
            raise

    def ask(self, film: bytes) -> "npt.NDArray[np.uint8] | _Refusal":
        """Have a film decoded.

        Raises:
            TimeoutError: it took too long, and the child was killed.
            EOFError: the child is dead, or talks nonsense.
            OSError: the child is dead.
        """
        with self._within(self._seconds):
            self._to.write(_REQUEST.pack(len(film)))
            self._to.write(film)
            self._to.flush()
            code, height, width = _ANSWER.unpack(_exactly(self._from, _ANSWER.size))
            if code:
                if code > len(_REFUSALS):
                    raise EOFError
                refusal: _Refusal = _REFUSALS[code - 1]
                return refusal
            if not 0 < height * width <= self._max_pixels:
                raise EOFError
            pixels = np.frombuffer(_exactly(self._from, height * width), np.uint8)
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


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


# From here on: what the child does.


class _Refused(Exception):
    def __init__(self, refusal: _Refusal) -> None:
        self.refusal = refusal


class _Reads(io.BytesIO):
    """A file that does not let itself be read in endlessly many small pieces."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _READS:
            raise _Refused(_Refusal.ELEMENTS)
        return super().read(size)


def _serve(max_pixels: int, seconds: int, memory_bytes: int) -> None:
    _confine(memory_bytes)
    # Before the clock of the first film runs.
    import gdcm  # noqa: F401
    import pydicom.pixels.decoders  # noqa: F401
    from PIL import Jpeg2KImagePlugin, JpegImagePlugin  # noqa: F401

    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    outbox.write(_READY)
    outbox.flush()
    while header := inbox.read(_REQUEST.size):
        _allow(seconds)
        outbox.writelines(_answer(_exactly(inbox, *_REQUEST.unpack(header)), max_pixels))
        outbox.flush()


def _confine(memory_bytes: int) -> None:
    for limit, value in {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 16,
        resource.RLIMIT_NPROC: 0,
        # macOS knows the name, but refuses to set it.
        **({resource.RLIMIT_AS: memory_bytes} if sys.platform == "linux" else {}),
    }.items():
        value = _at_most(limit, value)
        resource.setrlimit(limit, (value, value))


def _allow(seconds: int) -> None:
    # The parent watches the clock; this ends a child whose parent was killed.
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = math.ceil(used.ru_utime + used.ru_stime) + seconds + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (_at_most(resource.RLIMIT_CPU, allowed), hard))


def _at_most(limit: int, value: int) -> int:
    """``value``, or less where the service itself is held to less."""
    _, hard = resource.getrlimit(limit)
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _answer(data: bytes, max_pixels: int) -> tuple[bytes, memoryview]:
    try:
        film = _read(data, max_pixels)
        return _ANSWER.pack(0, *film.shape), film.data
    except _Refused as refused:
        refusal = refused.refusal
    except MemoryError:
        refusal = _Refusal.MEMORY
    return _ANSWER.pack(_REFUSALS.index(refusal) + 1, 0, 0), memoryview(b"")


def _read(data: bytes, max_pixels: int) -> npt.NDArray[np.uint8]:
    try:
        film, syntax = _parse(data)
        inverse = _check(film, max_pixels)
        stored = _decode(film, syntax)
        shown = _show(film, stored, inverse)
    except (_Refused, MemoryError):
        raise
    except Exception as error:
        raise _Refused(_Refusal.BROKEN) from error
    if shown.min() == shown.max():
        raise _Refused(_Refusal.BLANK)
    return shown


def _parse(data: bytes) -> tuple["Dataset", str]:
    """The elements of ``_KEYWORDS``, and the transfer syntax."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset

    if any(data[: _MAGIC.start]):
        raise _Refused(_Refusal.PREAMBLE)
    stream = _Reads(data)
    stream.seek(_MAGIC.stop)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    syntax = str(meta.get("TransferSyntaxUID"))
    if syntax not in _SYNTAXES:
        raise _Refused(_Refusal.SYNTAX)
    tags = [tag for tag in map(tag_for_keyword, _KEYWORDS) if tag is not None]
    implicit = syntax == "1.2.840.10008.1.2"
    film = read_dataset(stream, implicit, True, specific_tags=[*tags])
    if not film:  # pydicom forgets what it has read when compressed pixels end before their time
        raise _Refused(_Refusal.BROKEN)
    return film, syntax


def _check(film: "Dataset", max_pixels: int) -> bool:
    """Whether low values are bright, of a film that is accepted."""
    if film.get("Modality") not in _MODALITIES:
        raise _Refused(_Refusal.MODALITY)
    if film.get("PresentationIntentType") == "FOR PROCESSING":
        raise _Refused(_Refusal.INTENT)
    if _integer(film, "NumberOfFrames", 1) != 1:
        raise _Refused(_Refusal.FRAMES)
    photometric = film.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or _integer(film, "SamplesPerPixel") != 1:
        raise _Refused(_Refusal.COLOUR)
    inverse: bool = photometric == "MONOCHROME1"
    # PS3.3 C.8.11.3: INVERSE goes with MONOCHROME1, which is inverted once, not twice.
    if film.get("PresentationLUTShape") not in (None, "", "INVERSE" if inverse else "IDENTITY"):
        raise _Refused(_Refusal.POLARITY)
    allocated, used = _integer(film, "BitsAllocated"), _integer(film, "BitsStored")
    if (
        allocated not in (8, 16)
        or not 1 <= used <= allocated
        or _integer(film, "HighBit", used - 1) != used - 1
    ):
        raise _Refused(_Refusal.BITS)
    rows, columns = _integer(film, "Rows"), _integer(film, "Columns")
    if rows * columns > max_pixels:
        raise _Refused(_Refusal.AREA)
    return inverse


def _decode(film: "Dataset", syntax: str) -> npt.NDArray[Any]:
    """Stored values: [Rows, Columns] of 8 or 16 bits, signed or not."""
    from PIL import Image
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder

    plugin = _SYNTAXES[syntax]
    bits = film.BitsStored
    try:
        if plugin in ("pillow", "gdcm"):
            frame = get_frame(film.PixelData, 0, number_of_frames=1)
        if plugin == "gdcm":
            _check_frame(frame, film)
            # GDCM aborts at fewer than 8, and pydicom leaves what lies above those of JPEG-LS.
            bits = film.BitsAllocated
        elif plugin == "pillow":
            with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
                if image.size != (film.Columns, film.Rows):
                    raise ValueError("another size than the file says")
        stored, _ = get_decoder(syntax).as_array(
            film, index=0, raw=True, decoding_plugin=plugin, bits_stored=bits
        )
        unused = bits - film.BitsStored
        if unused:
            stored = stored << unused >> unused
    except MemoryError:
        raise
    except Exception as error:
        raise _Refused(_Refusal.PIXELS) from error
    return stored


def _check_frame(frame: bytes, film: "Dataset") -> None:
    """Raise where a frame of JPEG Lossless or JPEG-LS is not what the file says.

    GDCM goes by the frame to another size, to colour and, above 16 bits, out of bounds; and it
    aborts where anything lies between segments.
    """
    start, header = 2, b""
    while frame[start : start + 2] != _SCAN:
        if frame[start] != 0xFF or frame[start + 1] not in _SEGMENTS:
            raise ValueError("no segment")
        end = start + 2 + int.from_bytes(frame[start + 2 : start + 4], "big")
        if frame[start + 1] in _FRAMES:
            header += frame[start + 4 : end]
        start = end
    bits, *size = _FRAME.unpack(header)
    if size != [film.Rows, film.Columns, 1] or not 2 <= bits <= film.BitsAllocated:
        raise ValueError("another size than the file says")
    # Else what pads the frame is decoded, in place of what was cut off.
    if not frame.rstrip(b"\0").endswith(_END):
        raise ValueError("no end")


def _show(film: "Dataset", stored: npt.NDArray[Any], inverse: bool) -> npt.NDArray[np.uint8]:
    """Grey levels as PS3.4 N.2 orders them: modality, then window, then polarity.

    They are computed for every value that a pixel can have, which are far fewer than pixels.
    """
    unsigned = np.dtype(f"u{stored.itemsize}")
    codes = stored.view(unsigned)
    values = np.arange(2 ** (8 * stored.itemsize)).astype(unsigned).view(stored.dtype)
    padded = _padding(film, values)
    levels = _modality(film, values.astype(np.float64))
    shades = _voi(film, levels)
    if shades is None:
        # A row at a time, here and below: an index is copied to 64-bit integers.
        seen = np.zeros(values.shape, np.bool_)
        for row in codes:
            seen[row] = True
        if not (seen & ~padded).any():
            raise _Refused(_Refusal.BLANK)
        low, high = levels[seen & ~padded].min(), levels[seen & ~padded].max()
        shades = (np.clip(levels, low, high) - low) / ((high - low) or 1)
    if not (np.isfinite(levels).all() and np.isfinite(shades).all()):
        raise _Refused(_Refusal.SHADING)
    table = np.rint(255 * np.clip(1 - shades if inverse else shades, 0, 1)).astype(np.uint8)
    table[padded] = 0
    shown = np.empty(stored.shape, np.uint8)
    for row, line in zip(codes, shown, strict=True):
        line[:] = table[row]
    return shown


def _padding(film: "Dataset", values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which stored values say that there is no film (PS3.3 C.7.5.1.1.2)."""
    if film.get("PixelPaddingValue") is None:
        return np.zeros(values.shape, np.bool_)
    first = _integer(film, "PixelPaddingValue")
    last = _integer(film, "PixelPaddingRangeLimit", first)
    # Some files write a signed value as unsigned; its bits are the same.
    low, high = sorted(values[bound % values.size] for bound in (first, last))
    return np.asarray((values >= low) & (values <= high))


def _modality(film: "Dataset", values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The values in units of the modality (PS3.3 C.11.1)."""
    item = _item(film, "ModalityLUTSequence")
    if item is not None:
        return _look_up(values, item)[0]
    slope, intercept = _real(film, "RescaleSlope"), _real(film, "RescaleIntercept")
    return values * (1 if slope is None else slope) + (intercept or 0)


def _voi(film: "Dataset", levels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """0 to 1 by the first look-up table or window, None without either (PS3.3 C.11.2).

    Done here because pydicom 3.0's ``apply_voi`` wraps around in tables of 8 bits, and its
    ``apply_windowing`` turns a film to its negative where the rescale slope is negative.
    """
    item = _item(film, "VOILUTSequence")
    if item is not None:
        grey, most = _look_up(levels, item)
        return grey / most
    center, width = _real(film, "WindowCenter"), _real(film, "WindowWidth")
    if center is None or width is None:
        return None
    function = film.get("VOILUTFunction") or "LINEAR"
    if function == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp(-4 * (levels - center) / width))
    if function == "LINEAR" and width >= 1:
        center, width = center - 0.5, width - 1
    elif function != "LINEAR_EXACT" or not width > 0:
        raise _Refused(_Refusal.SHADING)
    if width == 0:
        return (levels > center).astype(np.float64)
    return np.clip((levels - center) / width + 0.5, 0, 1)


def _look_up(
    levels: npt.NDArray[np.float64], item: "Dataset"
) -> tuple[npt.NDArray[np.float64], int]:
    """Levels through a table, and the highest that such a table can hold (PS3.3 C.11.1.1)."""
    entries, first, bits = item.LUTDescriptor
    entries = entries % 2**16 or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        packed = bits == 8 and len(data) - entries in (0, 1)
        data = np.frombuffer(data, "u1" if packed else "<u2")
    table = np.atleast_1d(np.asarray(data, np.float64))[:entries]
    if table.size < entries or not 8 <= bits <= 16 or table.max() >= 2**bits:
        raise _Refused(_Refusal.SHADING)
    index = np.clip(np.rint(levels) - first, 0, entries - 1).astype(np.intp)
    return table[index], 2**bits - 1


def _item(film: "Dataset", keyword: str) -> "Dataset | None":
    """The first item of a sequence."""
    from pydicom.tag import Tag

    if keyword not in film:
        return None
    raw = film.get_item(Tag(keyword)).value
    if isinstance(raw, bytes) and len(raw) > _SEQUENCE_BYTES:
        raise _Refused(_Refusal.ELEMENTS)
    items = film[keyword].value
    return items[0] if items else None


def _integer(film: "Dataset", keyword: str, default: int | None = None) -> int:
    value = film.get(keyword)
    if value is None:
        value = default
    if not isinstance(value, int):
        raise _Refused(_Refusal.BROKEN)
    return value


def _real(film: "Dataset", keyword: str) -> float | None:
    """A finite number, the first where there are several; None where there is none."""
    value = film.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0]
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise _Refused(_Refusal.SHADING)
    return number


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:]))
