"""The main job."""

import dagster as dg

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all(),
    description="The whole graph: fetch, prepare, train both models, report, check, release.",
    config={"loggers": {"console": {"config": {"log_level": "INFO"}}}},
)
