"""What goes wrong is told by name, ends FAILED in MLflow as in Dagster, and costs nothing."""

import dagster as dg
import pytest

from cxr_serving import bundle


@pytest.mark.parametrize("how", ["retrain", "materialize"])
def test_a_failed_run_is_failed_in_mlflow_too(trained, how, tmp_path):
    before = bundle.latest(trained.layout.models("convnext_model"))
    overrides = ("data=folder", f"data.folder={tmp_path}")
    if how == "retrain":
        finished = trained.retrain(*overrides)
    else:
        finished = trained.materialize("raw_kaggle", *overrides)
    assert finished.returncode != 0
    assert str(tmp_path) in finished.stderr
    run = trained.runs()[0]
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert trained.mlflow_parent(run.run_id).info.status == "FAILED"
    assert bundle.latest(trained.layout.models("convnext_model")) == before


def test_materialising_some_assets_ends_finished_with_one_parent(trained):
    finished = trained.materialize("convnext_model,dinov2_probe")
    assert finished.returncode == 0, finished.stderr[-3000:]
    run = trained.runs()[0]
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert trained.mlflow_parent(run.run_id).info.status == "FINISHED"


def test_a_model_that_does_not_beat_the_probe_is_not_released(trained):
    released = bundle.read_pointer(trained.layout.releases)
    finished = trained.retrain("seed=3", "margin=1")
    assert finished.returncode != 0
    run = trained.runs()[0]
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert trained.mlflow_parent(run.run_id).info.status == "FAILED"
    assert bundle.latest(trained.layout.models("convnext_model")).name != released
    assert bundle.read_pointer(trained.layout.releases) == released
    with dg.DagsterInstance.from_config(str(trained.home)) as instance:
        steps = {step.step_key: step.status for step in instance.get_run_step_stats(run.run_id)}
    succeeded = {key for key, status in steps.items() if status.value == "SUCCESS"}
    assert "metrics_report" in succeeded
    assert "hf_release" not in succeeded


def test_a_mistyped_setting_is_refused_with_the_nearest_name(trained):
    finished = trained.retrain("trainer.max_epoch=3")
    assert finished.returncode != 0
    assert "did you mean 'trainer.max_epochs'" in finished.stderr


def test_without_dagster_home_the_user_is_warned(new_workplace):
    workplace = new_workplace()
    finished = workplace.materialize("raw_kaggle", DAGSTER_HOME="")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "DAGSTER_HOME is not set" in finished.stderr
