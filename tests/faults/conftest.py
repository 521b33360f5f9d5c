import os
import random

import pytest
from defs.conftest import instance, untouched_instance

__all__ = ["instance", "untouched_instance"]


@pytest.fixture
def chance() -> random.Random:
    """Moments and sizes; a test that fails shows its seed."""
    seed = int.from_bytes(os.urandom(4))
    print(f"random.Random({seed})")  # noqa: T201
    return random.Random(seed)
