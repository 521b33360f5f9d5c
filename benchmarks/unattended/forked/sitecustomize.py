"""Dagster's runs as forks of a process that has imported the libraries, where this is on the path.

A short retraining spends most of its time on these imports.
"""

import multiprocessing
import uuid
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

# All of them in the environment of the runs.
_IMPORTED = [
    "cxr_assets.definitions",
    "cxr_assets.training",
    *Path(__file__).with_name("imported.txt").read_text(encoding="utf-8").split(),
]
_real = multiprocessing.get_context


def _address(family: str) -> str:
    """Of a socket without a file: below a long root its path would have too many characters."""
    return f"\0cxr-soak-{uuid.uuid4().hex}"


def _forking(method: str | None = None) -> Any:
    if method != "spawn":
        return _real(method)
    connection.arbitrary_address = _address  # type: ignore[attr-defined]
    context = _real("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    forkserver.ensure_running()
    return context


multiprocessing.get_context = _forking
