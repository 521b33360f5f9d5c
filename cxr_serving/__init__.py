"""The HTTP service, and what it shares with the pipeline: models and images."""

import os

# ONNX Runtime sends usage data to its maker from the moment it is imported; not from a hospital.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
