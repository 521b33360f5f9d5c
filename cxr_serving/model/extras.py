"""What the extra ``cuda`` brings, and how to get it."""

from importlib.util import find_spec

_PACKAGES = ("torch", "transformers")


def torch_missing() -> str | None:
    """What is missing to compute with torch, and how to install it; None where nothing is."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if not missing:
        return None
    return (
        f"needs {' and '.join(missing)}: install the extra `cuda` with "
        "pip install 'cxr-retraining[cuda]'"
    )
