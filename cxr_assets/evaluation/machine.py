"""The software and the machine that a report was made with."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from cxr_serving.model import processors
from cxr_serving.model.report import Environment

_LIBRARIES = (
    "torch",
    "torchmetrics",
    "transformers",
    "lightning",
    "scikit-learn",
    "numpy",
    "pillow",
)


def environment() -> Environment:
    """Versions of Python and libraries, and the machine; None for what is not known."""
    return Environment(
        python=platform.python_version(),
        libraries={name: _version(name) for name in _LIBRARIES},
        system=platform.platform(),
        processors=processors.count(),
        accelerator=_accelerator(),
    )


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:  # another distribution provides the module
        return None


def _accelerator() -> str | None:
    try:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
    except RuntimeError:  # the driver does not match
        return None
    return str(accelerator) if accelerator else None
