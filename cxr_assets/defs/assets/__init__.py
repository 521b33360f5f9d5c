"""The six assets of the graph, one module each."""

import warnings
from datetime import timedelta

import dagster as dg

# dagster-mlflow and the data version of an op's output are beta, but pinned and tested here.
warnings.filterwarnings("ignore", category=dg.BetaWarning)

# One group: the Lineage page of the UI folds the assets of several groups away.
GROUP = "retraining"
OWNERS = ["team:maintainers"]
# A weekly run may be a day late. As long as the alert for a stale model in deploy/alerts.yml waits.
WEEKLY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=9), warn_window=timedelta(days=8)
)
