"""Releases of tiny models, and what is in them."""

from datetime import UTC, datetime
from pathlib import Path

import reports
import tiny
from huggingface_hub import ModelCard

from cxr_assets.experiment import compose
from cxr_assets.layout import Layout
from cxr_serving.model import bundle, store
from cxr_serving.model.bundle import BundleRecord
from cxr_serving.model.report import METRICS_FILE, Clause

OVERRIDES = ("seed=3", f"data.image_size={tiny.SIZE}", *tiny.LIMITS)
SYNTHETIC = compose("demo", OVERRIDES)
FOLDER = compose("scratch", ["data.folder=/home/somebody/patients", *OVERRIDES])
KAGGLE = compose("full", OVERRIDES)
_NOW = datetime(2026, 1, 4, 3, tzinfo=UTC)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def body(release: Path) -> str:
    """The card without its metadata."""
    return ModelCard.load(release / "README.md").text.strip()


def clause(passed: bool) -> Clause:
    return Clause(
        name="calibrated", figure=0.2, interval=None, limit=0.1, passed=passed, text="It is 0.2."
    )


def release(layout: Layout, week: int, passed: bool = True) -> Path:
    """A release that holds little more than a report with one clause; nothing is decided on it."""
    fingerprint = f"{week:064x}"
    record = BundleRecord(
        asset="convnext_model",
        version=bundle.new_version(fingerprint[::-1], _NOW.replace(day=week)),
        fingerprint=fingerprint[::-1],
        classes=("a", "b"),
        input_size=32,
        created_at=_NOW,
        data_version="d",
        code_version="c",
        seed=0,
        pretrained=None,
        synthetic=False,
        validation={},
    )

    def write(directory: Path) -> None:
        content = reports.report(clauses=[clause(passed)]).content()
        (directory / METRICS_FILE).write_bytes(content)

    return store.publish(layout.releases, record, write, point=False)
