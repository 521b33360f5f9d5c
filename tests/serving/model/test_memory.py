import ctypes
import platform
import re
from pathlib import Path

import pytest

from cxr_serving.model.memory import return_freed


def resident() -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_blocks_between_those_in_use_go_back_to_the_system() -> None:
    # Too small to be mapped alone; each second one stays.
    blocks = [bytes([1]) * 100_000 for _ in range(1000)]
    before = resident()
    del blocks[::2]
    return_freed()
    assert before - resident() > 30e6
    assert len(blocks) == 500


@pytest.mark.parametrize("error", [OSError("no libc"), AttributeError("malloc_trim")])
def test_a_library_that_cannot_return_memory_is_logged(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: object) -> None:
        raise error

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(ctypes, "CDLL", fail)
    return_freed()
    assert f"freed memory was not returned: {error}" in caplog.text
