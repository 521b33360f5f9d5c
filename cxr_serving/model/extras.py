"""What the extras ``cuda``, ``s3`` and ``redis`` bring, and how to get them."""

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


def client_missing() -> str | None:
    """What is missing to use a bucket, and how to install it; None where nothing is."""
    if find_spec("boto3") is not None:
        return None
    return "needs boto3: install the extra `s3` with pip install 'cxr-retraining[s3]'"


def redis_missing() -> str | None:
    """What is missing to share a rate limit, and how to install it; None where nothing is."""
    if find_spec("redis") is not None:
        return None
    return "needs redis: install the extra `redis` with pip install 'cxr-retraining[redis]'"
