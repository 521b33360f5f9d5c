"""The job ``retrain``: the whole graph."""

import dagster as dg

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all(),
    description="The whole graph: collect and prepare images, train both models, report, release.",
    config={"loggers": {"console": {"config": {"log_level": "INFO"}}}},
)
