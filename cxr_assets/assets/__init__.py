"""The six assets of the graph, one module each."""

import warnings

import dagster as dg

# The data version of an op's output is beta, but pinned and tested here.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
