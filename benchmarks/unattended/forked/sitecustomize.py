"""Dagster's runs as forks of a process that has imported the libraries, where this is on the path.

A short retraining spends most of its time on these imports.
"""

import multiprocessing
import uuid
from multiprocessing import connection, forkserver
from typing import Any

_IMPORTED = [
    "cxr_assets.definitions",
    "cxr_assets.curves",
    "cxr_assets.evaluation.assessment",
    "cxr_assets.learning.bundling",
    "cxr_assets.learning.ema",
    "cxr_assets.learning.fit",
    "cxr_assets.learning.linear_probe",
    "cxr_assets.radiographs.preparation",
    "cxr_assets.release.release",
    "cxr_assets.training",
    "dagster_mlflow.resources",
    "transformers.models.convnextv2.modeling_convnextv2",
    "transformers.models.dinov2.modeling_dinov2",
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
