from pathlib import Path

import pytest
from radiographs import prepared

import cxr
from cxr_assets.layout import Layout
from cxr_assets.radiographs import membership

VERSION = "20260104T031500Z-1a2b3c4d"


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    layout = Layout(tmp_path / "data")
    monkeypatch.setenv("CXR_DATA_ROOT", str(layout.root))
    prepared.make(prepared.twelve_patients(tmp_path / "source"), layout)
    bundle = layout.models("convnext_model") / VERSION
    bundle.mkdir(parents=True)
    membership.write(bundle, layout.processed)
    return layout


def forget(patient: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        cxr.main(["data", "forget", patient])
    return stop.value.code


def test_forget_says_what_was_removed_and_which_models_know_the_images(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert forget("normal/IM-0010") == 0
    said = capsys.readouterr().out
    assert f"The withdrawal of folder/normal/IM-0010 is now on record: {layout.withdrawn}" in said
    assert "from the dataset     2 images" in said
    assert f"models/convnext_model/{VERSION}: 2 in test" in said
    assert forget("normal/IM-0010") == 0
    said = capsys.readouterr().out
    assert "was already on record" in said
    assert "from the dataset     0 images" in said
    assert f"models/convnext_model/{VERSION}: 2 in test" in said


def test_forget_fails_for_an_unknown_patient(layout: Layout) -> None:
    assert str(forget("IM-9999")).startswith("error: none of the 12 patients")
    assert not layout.withdrawn.exists()


def test_forget_fails_where_the_record_is_broken(layout: Layout) -> None:
    layout.withdrawn.write_text("patient\n")
    assert "restore it from a backup" in str(forget("normal/IM-0010"))
