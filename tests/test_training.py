"""A training with curves in MLflow, whatever happens to its server."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import tiny
from mlflow.tracking import MlflowClient
from mlflow_server import Server

from cxr_assets import tracking, training
from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.store import EXPERIMENT


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


@pytest.mark.parametrize("back", [True, False], ids=["and comes back", "for good"])
def test_a_training_continues_when_the_server_dies(back, server, tmp_path):
    layout = Layout(tmp_path / "data")
    tiny.processed(layout, images=2)
    overrides = [*tiny.NETWORKS, "trainer.max_epochs=4", "trainer.batch_size=4"]
    plan = make_plan("convnext_model", compose("demo", overrides), layout)
    lines: list[str] = []

    def progress(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2/4"):
            server.kill()
        elif line.startswith("epoch 4/4") and back:
            server.start()

    tracking.open_store(server.url, layout, progress)
    parent = tracking.start_run("retrain")
    training.fit(plan, progress)
    parent.set_tags({"asset": "convnext_model"})
    tracking.close("FINISHED")

    said = [line for line in lines if line.startswith("MLflow")]
    assert "continuing without it" in said[0]
    history = pd.read_csv(plan.work / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    if not back:
        assert "lost" in said[-1]
        assert len(said) <= 4
        return
    assert "is back and has received the" in said[-1]
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    points = client.get_metric_history(runs["convnext_model"].info.run_id, "val_macro_f1")
    curve = [point.value for point in sorted(points, key=lambda point: point.step)]
    recorded = history["val_macro_f1"].tolist()
    assert curve == pytest.approx(recorded)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["retrain"].data.tags["asset"] == "convnext_model"
    assert [file.path for file in client.list_artifacts(runs["convnext_model"].info.run_id)]
