"""Small bundles, for tests of how they are recorded and stored."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cxr_serving.model import bundle
from cxr_serving.model.bundle import BundleRecord

FINGERPRINT = "0123456789abcdef" * 4
START = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def record(number: int = 0, **changes: object) -> BundleRecord:
    made = START + timedelta(weeks=number)
    return BundleRecord.model_validate(
        {
            "asset": "convnext_model",
            "version": bundle.new_version(FINGERPRINT, made),
            "fingerprint": FINGERPRINT,
            "classes": ("a", "b"),
            "input_size": 32,
            "created_at": made,
            "data_version": "d",
            "code_version": "c",
            "seed": 0,
            "pretrained": None,
            "synthetic": True,
            "validation": {},
            **changes,
        }
    )


def write_files(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "deep").mkdir()
    (directory / "deep" / "notes.txt").write_text("notes")
