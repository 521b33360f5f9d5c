"""Simulated time in every Python process that finds this folder on its path.

Wall-clock time alone: `time.time` and `datetime.now`. Timeouts and pauses, which go by the
monotonic clock, and the times of files stay real.
"""

import ctypes
import datetime
import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

_FILE = Path(os.environ["SIMULATED_CLOCK"])
_real = time.time


def _simulated() -> float:
    """As the class `Clock` says; real for gRPC, whose core counts deadlines in real time."""
    if sys._getframe(1).f_globals.get("__name__", "").partition(".")[0] == "grpc":
        return _real()
    real, simulated, seconds = map(float, _FILE.read_text().split())
    minutes, rest = divmod(_real() - real, seconds)
    return simulated + 60 * (minutes + 1) - seconds + rest


def _now(cls: type[datetime.datetime], tz: datetime.tzinfo | None = None) -> datetime.datetime:
    return cls.fromtimestamp(time.time(), tz)


def _utcnow(cls: type[datetime.datetime]) -> datetime.datetime:
    return _now(cls, datetime.UTC).replace(tzinfo=None)


def _replace(name: str, method: Callable[..., datetime.datetime]) -> None:
    """In the class itself: pandas cannot be imported with another one in its place."""
    gc.get_referents(datetime.datetime.__dict__)[0][name] = classmethod(method)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))


time.time = _simulated
time.time_ns = lambda: int(_simulated() * 1e9)
_replace("now", _now)
_replace("utcnow", _utcnow)
