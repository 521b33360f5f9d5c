"""The processes that decode: one for each image, replaced when they die, shared by threads."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from dicoms import compressed, dicom, grey, image, lossless, lut, rle, rle_frame, stretched
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    UID,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr_serving.images.dicom import DicomReader
from cxr_serving.model.preprocessing import (
    ImageError,
    ImageTooLarge,
    UndecodableImage,
)


def children() -> set[int]:
    """The processes that fork those which decode for this one."""
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "cxr_serving.images.dicom"],
        capture_output=True,
        text=True,
        check=False,
    )
    return set(map(int, found.stdout.split()))


FILES = [
    dicom(grey(8, np.uint8), WindowCenter=100, WindowWidth=90),
    dicom(grey(), ImplicitVRLittleEndian, PixelPaddingValue=3),
    dicom(grey(), VOILUTSequence=Sequence([lut(9, 0, 8, bytes(9) + b"\1")])),
    compressed(grey(), RLELossless, rle(grey())),
    compressed(grey(8, np.uint8), JPEGBaseline8Bit, image(grey(8, np.uint8), "JPEG")),
    compressed(grey(), JPEG2000, image(grey(), "JPEG2000", no_jp2=True)),
    compressed(grey(), JPEGLosslessSV1, lossless(grey(), JPEGLosslessSV1)),
    compressed(grey(), JPEGLSLossless, lossless(grey(), JPEGLSLossless)),
]


@settings(deadline=None, max_examples=100)
@given(
    file=st.sampled_from(FILES),
    # Most of what matters lies before the pixels.
    changes=st.lists(st.tuples(st.integers(132, 1000), st.integers(0, 255)), max_size=8),
    end=st.one_of(st.none(), st.integers(132, 4000)),
)
def test_any_damage_is_an_image_or_a_rejection(
    reader: DicomReader, file: bytes, changes: list[tuple[int, int]], end: int | None
) -> None:
    damaged = bytearray(file)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    try:
        actual = reader.read(bytes(damaged[:end]))
    except ImageError:
        return
    assert actual.ndim == 2
    assert actual.dtype == np.uint8


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_a_damaged_frame_does_not_end_the_child(reader: DicomReader, syntax: UID) -> None:
    frame = lossless(grey(), syntax, 12)
    begun = children()
    for bit in [*range(0, 8 * 60, 11), *range(8 * 60, 8 * len(frame), 499)]:
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        # No checksum tells that other pixels are not those of the image.
        with suppress(UndecodableImage):
            reader.read(compressed(grey(), syntax, bytes(damaged), BitsStored=12))
    assert np.array_equal(reader.read(dicom(grey())), stretched(grey()))
    assert children() == begun


def begin(reader: DicomReader) -> int:
    """Have a first image read; the child that did it."""
    others = children()
    assert np.array_equal(reader.read(dicom(grey())), stretched(grey()))
    (pid,) = children() - others
    return pid


def test_a_killed_child_is_replaced(make_reader: Callable[..., DicomReader]) -> None:
    reader = make_reader()
    pid = begin(reader)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert begin(reader) != pid


def worker(child: int) -> int:
    """The process that waits for the next image."""
    deadline = time.monotonic() + 20
    while True:
        found = subprocess.run(
            ["pgrep", "-P", str(child), "-r", "S"], capture_output=True, text=True, check=False
        ).stdout.split()
        if found:
            return int(found[0])
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_image_has_a_process_of_its_own_which_waits_for_it(
    make_reader: Callable[..., DicomReader],
) -> None:
    reader = make_reader()
    child = begin(reader)
    seen = [worker(child)]
    for file in (dicom(grey()), b"no DICOM", dicom(grey())):
        with suppress(UndecodableImage):
            reader.read(file)
        seen.append(worker(child))
        assert not Path(f"/proc/{seen[-2]}").exists()
    assert len(set(seen)) == len(seen)
    assert child in children()


def test_an_image_is_read_although_its_process_was_killed(
    make_reader: Callable[..., DicomReader],
) -> None:
    reader = make_reader()
    child = begin(reader)
    os.kill(worker(child), signal.SIGKILL)
    assert np.array_equal(reader.read(dicom(grey())), stretched(grey()))
    assert child in children()


def test_a_child_that_hangs_is_replaced(make_reader: Callable[..., DicomReader]) -> None:
    reader = make_reader(seconds=1)
    for side in (30, 500):  # the second is more than a pipe takes
        pid = begin(reader)
        os.killpg(pid, signal.SIGSTOP)
        with pytest.raises(UndecodableImage, match="longer than 1 s"):
            reader.read(dicom(np.zeros((side, side), np.uint16)))
        assert pid not in children()
    begin(reader)


def test_an_interrupted_image_is_not_mixed_up_with_the_next(
    make_reader: Callable[..., DicomReader],
) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    reader = make_reader()
    pid = begin(reader)
    os.killpg(pid, signal.SIGSTOP)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(KeyboardInterrupt):
            reader.read(dicom(np.zeros((9, 9), np.uint16)))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert pid not in children()
    begin(reader)


def test_a_closed_reader_leaves_no_child(make_reader: Callable[..., DicomReader]) -> None:
    reader = make_reader()
    pid = begin(reader)
    reader.close()
    assert pid not in children()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_an_image_that_takes_too_much_memory_is_rejected(
    make_reader: Callable[..., DicomReader],
) -> None:
    reader = make_reader(memory_bytes=240 * 2**20)
    begin(reader)
    # A few bytes that say that they are 64 million pixels of 16 bits.
    large = compressed(grey(), RLELossless, rle_frame([b"\0"] * 2), Rows=8000, Columns=8000)
    with pytest.raises(ImageTooLarge, match="more memory"):
        reader.read(large)
    # Four megabytes of runs, 256 unpacked, where a few kilobytes are due.
    bomb = compressed(grey(), RLELossless, rle_frame([b"\x81\x01" * 2**21] * 2))
    with pytest.raises(UndecodableImage, match="too much memory"):
        reader.read(bomb)
    assert np.array_equal(reader.read(dicom(grey())), stretched(grey()))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_child_is_small_and_knows_no_secret(
    make_reader: Callable[..., DicomReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_SECRET", "secret")
    process = Path(f"/proc/{worker(begin(make_reader()))}")
    assert b"SECRET" not in (process / "environ").read_bytes()
    assert "torch" not in (process / "maps").read_text()
    limits = (process / "limits").read_text()
    for name in ("core file size", "file size", "processes"):
        assert re.search(rf"^Max {name} +0 +0 ", limits, re.MULTILINE), limits


def test_threads_get_their_own_images(reader: DicomReader) -> None:
    images = [grey(seed=seed) for seed in range(24)]
    with ThreadPoolExecutor(6) as pool:
        read = list(pool.map(lambda pixels: reader.read(dicom(pixels)), images))
    for actual, pixels in zip(read, images, strict=True):
        assert np.array_equal(actual, stretched(pixels))
