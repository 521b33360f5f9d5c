import shutil
from pathlib import Path

import pytest
import quick
import tiny
import torch

from cxr_assets.evaluation.report import write_report
from cxr_assets.layout import Layout


@pytest.fixture(autouse=True)
def _quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    quick.reports(monkeypatch)


def untouched(root: Path, synthetic: bool) -> Layout:
    """Processed dataset, both bundles and report, in an empty folder."""
    layout = Layout(root)
    torch.manual_seed(0)
    data = tiny.processed(layout, synthetic=synthetic, test_images=4)
    bundles = [
        tiny.publish(
            layout,
            asset,
            model,
            data.data_version,
            synthetic=synthetic,
            temperature=1.7,
            with_onnx=asset == "convnext_model",
            gate=tiny.gate() if asset == "convnext_model" else None,
        )
        for asset, model in (
            ("convnext_model", tiny.convnext()),
            ("dinov2_probe", tiny.dinov2()),
        )
    ]
    with pytest.MonkeyPatch.context() as patch:
        quick.reports(patch)
        write_report(layout, *bundles, rule=tiny.RULE)
    return layout


@pytest.fixture(scope="session")
def untouched_synthetic(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return untouched(tmp_path_factory.mktemp("untouched"), synthetic=True)


@pytest.fixture(scope="session")
def untouched_real(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return untouched(tmp_path_factory.mktemp("untouched"), synthetic=False)


@pytest.fixture
def reported(tmp_path: Path, untouched_synthetic: Layout) -> Layout:
    """A data root with the report on models of synthetic images."""
    return Layout(Path(shutil.copytree(untouched_synthetic.root, tmp_path / "synthetic_images")))


@pytest.fixture
def real(tmp_path: Path, untouched_real: Layout) -> Layout:
    """A data root with a report on models from random weights, on images not synthetic."""
    return Layout(Path(shutil.copytree(untouched_real.root, tmp_path / "real")))
