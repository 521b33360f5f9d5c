"""Paths on the command line: a shell does not expand ``~`` in ``--csv=~/table.csv``."""

from pathlib import Path


def place(text: str) -> Path:
    """The path that an argument or an option names."""
    from cxr_serving.model.places import expanded

    return expanded(text)
