"""The six assets of the graph, one module each."""

import warnings

import dagster as dg

# dagster-mlflow and the data version of an op's output are beta, but pinned and tested here.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
