"""Dagster pipeline that retrains a chest X-ray classifier.

For research and education; not a medical device.
"""

import cxr_serving  # noqa: F401  It silences ONNX Runtime, which is imported further down.
