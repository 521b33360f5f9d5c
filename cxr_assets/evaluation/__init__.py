"""How good the models are on the test split: metrics, plots and the report."""
