"""What a report was made with."""

import os
import platform
from importlib.metadata import version
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
    """Versions of Python and libraries, and the machine, for JSON."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "accelerator": str(accelerator) if accelerator else None,
    }
