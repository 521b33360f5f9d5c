import shutil
from pathlib import Path

import pytest
import tiny
import torch

from cxr_assets.evaluation import bootstrap
from cxr_assets.layout import Layout


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for what is not about the intervals themselves."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 40)


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("untouched"))
    torch.manual_seed(0)
    data = tiny.processed(layout)
    tiny.publish(layout, "convnext_model", tiny.convnext(), data.data_version)
    tiny.publish(layout, "dinov2_probe", tiny.dinov2(), data.data_version)
    return layout


@pytest.fixture
def layout(tmp_path: Path, untouched: Layout) -> Layout:
    """A data root with a processed dataset and a bundle of each model."""
    return Layout(Path(shutil.copytree(untouched.root, tmp_path / "data")))
