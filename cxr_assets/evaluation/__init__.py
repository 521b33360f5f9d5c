"""How good the models are on the test split: metrics, figures and the report."""
