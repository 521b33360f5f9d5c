import json
from pathlib import Path

import pytest

from cxr_serving.http import figures
from cxr_serving.http.figures import FiguresError

VERSION = "20260104T031500Z-1a2b3c4d"
REPORT = {
    "images": 624,
    "accuracy": 0.8,
    "macro_f1": 0.75,
    "auroc_macro_ovr": 0.9,
    "intervals": {"accuracy": [0.7, 0.85], "macro_f1": [0.6, 0.8], "auroc_macro_ovr": [0.8, 0.95]},
}


def write(directory: Path, content: str) -> None:
    directory.mkdir(parents=True)
    (directory / "metrics.json").write_text(content)


def test_model_without_a_report_has_no_figures(tmp_path: Path) -> None:
    assert figures.read(tmp_path, tmp_path / "models" / "convnext_model" / VERSION) is None


@pytest.mark.parametrize("place", ["reports", "releases"])
def test_figures_are_those_of_the_report_or_beside_the_release(tmp_path: Path, place: str) -> None:
    write(tmp_path / place / VERSION, json.dumps(REPORT))
    test = figures.read(tmp_path, tmp_path / "releases" / VERSION)
    assert test is not None
    assert test.images == 624
    assert test.figures["macro_f1"].model_dump() == {"value": 0.75, "low": 0.6, "high": 0.8}


@pytest.mark.parametrize(
    "content",
    ["{", "{}", json.dumps(REPORT | {"intervals": {}}), json.dumps(REPORT | {"images": -1.5})],
)
def test_broken_report_is_named(tmp_path: Path, content: str) -> None:
    write(tmp_path / "reports" / VERSION, content)
    with pytest.raises(FiguresError, match=VERSION):
        figures.read(tmp_path, tmp_path / "models" / "convnext_model" / VERSION)
