"""Readers of DICOM images, each with a child process."""

from collections.abc import Callable, Iterator

import pytest

from cxr_serving.images.dicom import DicomReader

MAX_PIXELS = 64_000_000


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    reader = DicomReader(MAX_PIXELS, seconds=20, memory_bytes=2**30)
    yield reader
    reader.close()


@pytest.fixture
def make_reader() -> Iterator[Callable[..., DicomReader]]:
    """``make_reader(seconds, memory_bytes)``: with a child of its own."""
    readers: list[DicomReader] = []

    def make(seconds: float = 20, memory_bytes: int = 2**30) -> DicomReader:
        readers.append(DicomReader(MAX_PIXELS, seconds, memory_bytes))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()
