"""The pipeline on a Ray cluster: see docs/ray.md."""
