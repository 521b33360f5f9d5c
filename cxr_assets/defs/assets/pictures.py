"""Plots as metadata that the Dagster UI shows inline."""

import base64

import dagster as dg


def markdown(png: bytes) -> dg.MarkdownMetadataValue:
    """Embed a PNG in Markdown."""
    return dg.MetadataValue.md(f"![](data:image/png;base64,{base64.b64encode(png).decode()})")
