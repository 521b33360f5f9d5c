"""A retraining without its MLflow server."""

from pathlib import Path

import pytest
from faults.retraining import Place, Retraining

from cxr_serving.model import store


@pytest.mark.parametrize("required", [False, True])
def test_a_retraining_needs_mlflow_only_if_it_is_required(required: bool, tmp_path: Path) -> None:
    overrides = [f"tracking.required={str(required).lower()}"]
    place = Place(tmp_path / "data", tmp_path / "home", overrides, mlflow="http://127.0.0.1:9")
    errors = Retraining(place).wait()
    pointed = store.read_pointer(place.layout.models("convnext_model"))
    if required:
        assert any("tracking.required=false" in error for error in errors), errors
        assert pointed is None
        return
    assert errors == []
    assert pointed is not None
    with place.instance() as instance:
        [run] = instance.get_runs()
        said = [entry.user_message for entry in instance.all_logs(run.run_id)]
    assert any("is out of reach" in line and "continuing without it" in line for line in said)
    assert any("records are lost" in line and "history.csv" in line for line in said), said
