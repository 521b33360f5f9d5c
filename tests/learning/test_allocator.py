import ctypes
import platform
from types import SimpleNamespace
from typing import NoReturn

import pytest

from cxr_assets.learning.allocator import keep_freed_memory


def unreadable() -> NoReturn:
    raise PermissionError(13, "Permission denied", "/usr/bin/python3")


@pytest.mark.parametrize(
    ("module", "name", "broken"),
    [
        (platform, "libc_ver", unreadable),
        (ctypes, "CDLL", lambda name: SimpleNamespace()),
    ],
    ids=["no word on the C library", "no mallopt"],
)
def test_an_allocator_that_cannot_be_tuned_fails_nothing(
    module, name, broken, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.41"))
    monkeypatch.setattr(module, name, broken)
    keep_freed_memory()
    assert "the memory allocator was not tuned" in caplog.text
