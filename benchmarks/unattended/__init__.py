"""The pipeline as it runs without anyone watching: thirteen weeks, and faults under load."""
