from pathlib import Path

import pytest

from cxr_assets import tracking
from cxr_assets.layout import Layout


def test_a_data_root_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layout = Layout(tmp_path / "Häuser #1? 50%20 & me@here: 'it''s' (2024)")
    layout.root.mkdir()
    (layout.root / "note.txt").write_text("here")
    reported: list[str] = []
    tracking.open_store(None, layout, reported.append)
    tracking.start_run("notes").log_artifact(layout.root / "note.txt")
    tracking.close("FINISHED")
    assert reported == []
    assert layout.mlflow_database.stat().st_size > 0
    [note] = layout.mlflow_artifacts.rglob("note.txt")
    assert note.read_text() == "here"
    assert [path.name for path in tmp_path.iterdir()] == [layout.root.name]
