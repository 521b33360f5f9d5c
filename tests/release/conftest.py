import shutil
from pathlib import Path

import pytest
import tiny
import torch

from cxr_assets.evaluation.report import write_report
from cxr_assets.layout import Layout


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Layout]:
    """For phantoms (True) and for other films: processed dataset, both bundles and report."""
    layouts = {}
    for synthetic in (True, False):
        layout = layouts[synthetic] = Layout(tmp_path_factory.mktemp("untouched"))
        torch.manual_seed(0)
        data = tiny.processed(layout, synthetic=synthetic, test_films=4)
        bundles = [
            tiny.publish(
                layout,
                asset,
                model,
                data.data_version,
                synthetic=synthetic,
                temperature=1.7,
                with_onnx=asset == "convnext_model",
            )
            for asset, model in (
                ("convnext_model", tiny.convnext()),
                ("dinov2_probe", tiny.dinov2()),
            )
        ]
        write_report(layout, *bundles)
    return layouts


@pytest.fixture
def reported(tmp_path: Path, untouched: dict[bool, Layout]) -> Layout:
    """A data root with the report on models of phantoms."""
    return Layout(Path(shutil.copytree(untouched[True].root, tmp_path / "phantoms")))


@pytest.fixture
def real(tmp_path: Path, untouched: dict[bool, Layout]) -> Layout:
    """A data root with the report on models, from random weights, of films that are no phantoms."""
    return Layout(Path(shutil.copytree(untouched[False].root, tmp_path / "real")))
