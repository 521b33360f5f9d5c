from pathlib import Path

import mlflow
import pytest

from cxr_assets import tracking
from cxr_assets.layout import Layout


def test_a_data_root_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layout = Layout(tmp_path / "Häuser #1? 50%20 & me@here: 'it''s' (2024)")
    before = mlflow.get_tracking_uri()
    try:
        uri = tracking.open_store(None, layout)
        assert mlflow.get_tracking_uri() == uri
        with mlflow.start_run():
            mlflow.log_text("here", "note.txt")
    finally:
        mlflow.set_tracking_uri(before)
    assert layout.mlflow_database.stat().st_size > 0
    [note] = layout.mlflow_artifacts.rglob("note.txt")
    assert note.read_text() == "here"
    assert [path.name for path in tmp_path.iterdir()] == [layout.root.name]
