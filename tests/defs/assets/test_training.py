"""Dagster retries a failed fit once, which resumes from its checkpoint."""

import dagster as dg
import pandas as pd
import pytest
import tiny
import torch

from cxr_assets import tracking
from cxr_assets.defs import retries
from cxr_assets.defs.assets.training import model_asset
from cxr_assets.defs.resources import DataRoot, Experiment, mlflow
from cxr_assets.layout import Layout
from cxr_assets.learning import fit
from cxr_assets.learning.history import DivergedError
from cxr_serving.model import store

OVERRIDES = (*tiny.NETWORKS, "trainer.max_epochs=3", "trainer.batch_size=4")


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = Layout(tmp_path)
    tiny.processed(layout, images=6)
    return layout


@pytest.fixture
def materialize(layout, monkeypatch):
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0)

    def run(*overrides: str) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [model_asset("convnext_model")],
            resources={
                "experiment": Experiment(
                    preset="demo", overrides=" ".join([*OVERRIDES, *overrides])
                ),
                "data_root": DataRoot(path=str(layout.root)),
                "mlflow": mlflow,
            },
            raise_on_error=False,
        )

    yield run
    tracking.close("FINISHED")


def steps(result: dg.ExecuteInProcessResult, kind: dg.DagsterEventType) -> list[str | None]:
    return [event.step_key for event in result.all_events if event.event_type is kind]


def test_a_crashed_fit_resumes_in_a_second_attempt(layout, materialize, monkeypatch):
    crashed = False
    write = torch.save

    def out_of_memory_once(*arguments, **more):
        nonlocal crashed
        if not crashed and arguments[0].get("epoch") == 1:
            crashed = True
            raise MemoryError("out of memory")
        write(*arguments, **more)

    monkeypatch.setattr(fit.torch, "save", out_of_memory_once)
    result = materialize()
    assert crashed
    assert result.success
    retried = steps(result, dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert retried == ["convnext_model.convnext_model_fit"]
    history = pd.read_csv(store.latest(layout.models("convnext_model")) / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2]


def test_a_diverged_training_is_not_retried(layout, materialize):
    result = materialize("model.lr=1e20")
    assert not result.success
    assert not steps(result, dg.DagsterEventType.STEP_UP_FOR_RETRY)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    assert DivergedError.__name__ in str(error.cause or error)
