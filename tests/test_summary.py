from pathlib import Path

import pytest
import reports
from bundles import record, write_files

from cxr_assets.layout import Layout
from cxr_assets.summary import print_summary, show
from cxr_serving.model import DISCLAIMER, store


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    reports.write(layout.reports)
    return layout


def text(layout: Layout, capsys: pytest.CaptureFixture[str]) -> str:
    print_summary(layout)
    return " ".join(capsys.readouterr().out.split())


def test_both_models_stand_with_what_they_were_tested_on(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    found = text(layout, capsys)
    for words in ("convnext_model", "dinov2_probe", "0.700", "synthetic images", DISCLAIMER):
        assert words in found


def test_external_sources_changes_and_unknown_patients_are_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = reports.report(
        external={"outside": reports.external()}, dataset=reports.dataset(unknown_patients=1200)
    )
    layout = Layout(tmp_path)
    reports.write(layout.reports, report.content())
    found = text(layout, capsys)
    for words in (
        "on outside (external) │ 0.800 │ 0.750",
        "50 added (50 normal)",
        "The patients of 1,200 images of the dataset are unknown",
    ):
        assert words in found


def test_the_release_is_named_once_there_is_one(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "release none yet" in text(layout, capsys)
    released = store.publish(layout.releases, record(), write_files)
    assert released.name in text(layout, capsys).replace(" ", "")


def test_what_is_missing_is_a_line_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_DATA_ROOT", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        show()
    assert str(stop.value.code).startswith(f"error: no report in {tmp_path / 'reports'}")
    assert str(stop.value.code).endswith("materialise metrics_report first")
