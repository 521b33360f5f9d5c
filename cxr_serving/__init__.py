"""HTTP service for chest radiographs. For research and education; not a medical device."""

import os

# ONNX Runtime sends usage data to its maker from the moment it is imported; not from a hospital.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
