"""The ``dg`` command in this project, as ``[tool.dg]`` of pyproject.toml sets it up.

``dg launch`` is what starts runs in test_jobs.py and test_ui.py.
"""

import json

import pytest


@pytest.fixture(scope="module")
def workplace(new_workplace):
    return new_workplace()


def test_check_defs_accepts_the_code_location_without_a_warning(workplace):
    finished = workplace.command("dg", "check", "defs", fresh=True, DAGSTER_HOME="", VIRTUAL_ENV="")
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
