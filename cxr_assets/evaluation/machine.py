"""What a report was made with."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_LIBRARIES = (
    "torch",
    "torchmetrics",
    "transformers",
    "lightning",
    "scikit-learn",
    "numpy",
    "pillow",
)


def environment() -> dict[str, Any]:
    """Versions of Python and libraries, and the machine, for JSON; None for what is not known."""
    return {
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "accelerator": _accelerator(),
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:  # another one that is imported by the same name
        return None


def _accelerator() -> str | None:
    try:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
    except RuntimeError:  # its driver does not fit
        return None
    return str(accelerator) if accelerator else None
