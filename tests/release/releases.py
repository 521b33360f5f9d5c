"""Releases of tiny models, and what is in them."""

from pathlib import Path

import tiny
from huggingface_hub import ModelCard

from cxr_assets.experiment import compose

OVERRIDES = ("seed=3", f"data.image_size={tiny.SIZE}", *tiny.LIMITS)
SYNTHETIC = compose("demo", OVERRIDES)
FOLDER = compose("scratch", ["data.folder=/home/somebody/patients", *OVERRIDES])
KAGGLE = compose("full", OVERRIDES)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def body(release: Path) -> str:
    """The card without its metadata."""
    return ModelCard.load(release / "README.md").text.strip()
