"""Plots as metadata that the Dagster UI shows inline."""

import dagster as dg

from cxr_serving.model.explanation import data_url


def markdown(png: bytes) -> dg.MarkdownMetadataValue:
    """Embed a PNG in Markdown."""
    return dg.MetadataValue.md(f"![]({data_url(png)})")
