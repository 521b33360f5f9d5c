"""The six assets of the graph, one module each."""

import warnings

import dagster as dg

# dagster-mlflow and the data version of an op's output are beta: pinned and tested, no news to users.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
