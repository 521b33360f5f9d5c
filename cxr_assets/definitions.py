"""The code location: ``dagster dev -m cxr_assets.definitions``."""

import logging
import os

import dagster as dg

from cxr_assets.defs.assets.convnext_model import convnext_model
from cxr_assets.defs.assets.dinov2_probe import dinov2_probe
from cxr_assets.defs.assets.hf_release import hf_release
from cxr_assets.defs.assets.metrics_report import metrics_report
from cxr_assets.defs.assets.processed_dataset import processed_dataset
from cxr_assets.defs.assets.raw_kaggle import raw_kaggle
from cxr_assets.defs.checks import checks
from cxr_assets.defs.executor import tracked_in_process
from cxr_assets.defs.jobs import retrain
from cxr_assets.defs.resources import DataRoot, Experiment, mlflow, settings
from cxr_assets.defs.schedules import weekly_retrain
from cxr_assets.defs.sensors import killed_runs

if not os.environ.get("DAGSTER_HOME"):
    logging.getLogger(__name__).warning(
        "DAGSTER_HOME is not set: Dagster forgets this run when the process ends, and the UI will "
        "not show it. Before you start: export DAGSTER_HOME=%s/dagster",
        settings.layout.root,
    )

definitions = dg.Definitions(
    assets=[
        raw_kaggle,
        processed_dataset,
        convnext_model,
        dinov2_probe,
        metrics_report,
        hf_release,
    ],
    asset_checks=checks,
    jobs=[retrain],
    schedules=[weekly_retrain],
    sensors=[killed_runs],
    resources={"experiment": Experiment(), "data_root": DataRoot(), "mlflow": mlflow},
    executor=tracked_in_process,
)
