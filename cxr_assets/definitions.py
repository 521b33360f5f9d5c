"""The code location ``cxr``: what Dagster loads, and ``dg list defs`` lists."""

import dagster as dg

from cxr_assets.defs.assets.convnext_model import convnext_model
from cxr_assets.defs.assets.dinov2_probe import dinov2_probe
from cxr_assets.defs.assets.hf_release import hf_release
from cxr_assets.defs.assets.metrics_report import metrics_report
from cxr_assets.defs.assets.processed_dataset import processed_dataset
from cxr_assets.defs.assets.raw_kaggle import raw_kaggle
from cxr_assets.defs.checks import checks
from cxr_assets.defs.executor import chosen
from cxr_assets.defs.jobs import retrain
from cxr_assets.defs.notifying import notifications
from cxr_assets.defs.resources import DataRoot, Experiment, mlflow
from cxr_assets.defs.schedules import weekly_retrain
from cxr_assets.defs.sensors import killed_runs
from cxr_assets.defs.triggers import triggers

assets = [
    raw_kaggle,
    processed_dataset,
    convnext_model,
    dinov2_probe,
    metrics_report,
    hf_release,
]
definitions = dg.Definitions(
    assets=assets,
    asset_checks=checks,
    jobs=[retrain],
    schedules=[weekly_retrain],
    sensors=[killed_runs, *notifications, *triggers],
    resources={"experiment": Experiment(), "data_root": DataRoot(), "mlflow": mlflow},
    executor=chosen(*assets, *checks),
)
