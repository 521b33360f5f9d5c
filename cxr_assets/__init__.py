"""Dagster pipeline that retrains a chest X-ray classifier.

For research and education; not a medical device.
"""
