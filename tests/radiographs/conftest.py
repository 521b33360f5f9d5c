from collections.abc import Callable
from pathlib import Path

import pytest
from radiographs.folders import NAMES, write_image

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.radiographs import raw


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source" / "chest_xray"
    for shade, name in enumerate(NAMES):
        write_image(root / name, 10 + shade)
    return root


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def collect(layout: Layout, said: list[str]) -> Callable[[Path], raw.RawImages]:
    def run(folder: Path) -> raw.RawImages:
        experiment = compose("scratch", [f"data.folder={folder}"])
        return raw.collect(experiment.data, experiment.classes, layout, said.append)

    return run
