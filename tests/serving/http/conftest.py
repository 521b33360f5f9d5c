"""A watcher of the models below ``tmp_path``, and its metrics."""

from pathlib import Path

import pytest
from following import load

from cxr_serving.http.metrics import Metrics
from cxr_serving.http.watcher import Watcher


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def watcher(tmp_path: Path, metrics: Metrics) -> Watcher:
    directory = tmp_path / "models" / "convnext_model"
    return Watcher(directory, "convnext_model", load, 0.05, metrics)
