import shutil
from pathlib import Path

import pytest
import quick
import tiny
import torch
from reporting import report_on

from cxr_assets.layout import Layout


@pytest.fixture(autouse=True)
def _quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    quick.reports(monkeypatch)


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("untouched"))
    torch.manual_seed(0)
    data = tiny.processed(layout, external=4)
    tiny.publish(layout, "convnext_model", tiny.convnext(), data.data_version, gate=tiny.gate())
    tiny.publish(layout, "dinov2_probe", tiny.dinov2(), data.data_version)
    return layout


@pytest.fixture
def layout(tmp_path: Path, untouched: Layout) -> Layout:
    """A data root with a processed dataset and a bundle of each model."""
    return Layout(Path(shutil.copytree(untouched.root, tmp_path / "data")))


@pytest.fixture(scope="session")
def untouched_report(untouched: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    root = tmp_path_factory.mktemp("untouched-report") / "data"
    layout = Layout(Path(shutil.copytree(untouched.root, root)))
    with pytest.MonkeyPatch.context() as patch:
        quick.reports(patch)
        report_on(layout)
    return layout


@pytest.fixture
def reported(tmp_path: Path, untouched_report: Layout) -> Layout:
    """The same with the report on these two."""
    return Layout(Path(shutil.copytree(untouched_report.root, tmp_path / "reported")))
