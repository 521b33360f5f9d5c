from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from cxr_assets.definitions import definitions

PARENTS = {
    "raw_kaggle": set(),
    "processed_dataset": {"raw_kaggle"},
    "convnext_model": {"processed_dataset"},
    "dinov2_probe": {"processed_dataset"},
    "metrics_report": {"convnext_model", "dinov2_probe"},
    "hf_release": {"metrics_report"},
}


def test_the_graph_is_the_one_of_the_design():
    graph = definitions.resolve_asset_graph()
    nodes = {node.key.to_user_string(): node for node in graph.asset_nodes}
    parents = {
        name: {key.to_user_string() for key in node.parent_keys} for name, node in nodes.items()
    }
    assert parents == PARENTS


def test_all_assets_are_in_one_group_which_the_lineage_page_shows_unfolded():
    nodes = definitions.resolve_asset_graph().asset_nodes
    assert {node.group_name for node in nodes} == {"retraining"}


@pytest.mark.parametrize("name", PARENTS)
def test_every_asset_explains_itself(name):
    node = definitions.resolve_asset_graph().get(dg.AssetKey(name))
    assert len(node.description or "") > 40
    assert node.owners
    assert node.kinds
    assert isinstance(node.freshness_policy, TimeWindowFreshnessPolicy)
    assert node.freshness_policy.fail_window.to_timedelta() > timedelta(weeks=1)


def test_checks_guard_data_models_and_release():
    checks = {
        (key.asset_key.to_user_string(), key.name)
        for key in definitions.resolve_asset_graph().asset_check_keys
    }
    assert checks == {
        ("processed_dataset", "patients_disjoint"),
        ("processed_dataset", "patients_known"),
        ("processed_dataset", "no_class_empty"),
        ("processed_dataset", "no_duplicates_across_splits"),
        ("convnext_model", "bundle_verifies"),
        ("dinov2_probe", "bundle_verifies"),
        ("metrics_report", "beats_probe"),
        ("metrics_report", "not_worse_than_released"),
        ("metrics_report", "no_class_worse"),
        ("metrics_report", "no_site_worse"),
        ("metrics_report", "calibrated"),
    }


def test_the_job_and_its_schedule():
    job = definitions.resolve_job_def("retrain")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(PARENTS)
    schedule = definitions.resolve_schedule_def("weekly_retrain")
    assert schedule.cron_schedule == "0 3 * * 0"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
