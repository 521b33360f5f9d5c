"""The pipeline as it runs without anyone watching."""
