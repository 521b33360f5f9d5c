"""The ``dg`` command in this project, as ``[tool.dg]`` of pyproject.toml sets it up."""

import json

import dagster as dg
import pytest


@pytest.fixture(scope="module")
def workplace(new_workplace):
    return new_workplace()


def test_check_defs_accepts_the_code_location_without_a_warning(workplace):
    finished = workplace.command("dg", "check", "defs", DAGSTER_HOME="", VIRTUAL_ENV="")
    assert finished.returncode == 0, finished.stderr
    assert "All definitions loaded successfully" in finished.stdout
    assert finished.stderr == ""


def test_list_defs_lists_the_graph(workplace):
    finished = workplace.command("dg", "list", "defs", "--json")
    assert finished.returncode == 0, finished.stderr
    listed = json.loads(finished.stdout)
    assert [asset["asset_key"] for asset in listed["assets"]] == [
        "convnext_model", "dinov2_probe", "hf_release", "metrics_report", "processed_dataset",
        "raw_kaggle",
    ]  # fmt: skip
    assert [job["name"] for job in listed["jobs"]] == ["retrain"]
    assert [schedule["name"] for schedule in listed["schedules"]] == ["weekly_retrain"]


def test_launch_materialises_an_asset(workplace):
    finished = workplace.materialize("raw_kaggle")
    assert finished.returncode == 0, finished.stderr[-3000:]
    (run,) = workplace.runs()
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.asset_selection == {dg.AssetKey("raw_kaggle")}


def test_launch_knows_the_job(workplace):
    finished = workplace.command(
        "dg", "launch", "--job", "retrain", CXR_OVERRIDES="trainer.max_epoch=3"
    )
    assert finished.returncode != 0
    assert workplace.runs()[0].job_name == "retrain"
    assert "did you mean 'trainer.max_epochs'" in finished.stderr
