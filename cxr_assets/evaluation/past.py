"""The models before this one, from what they left on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cxr_assets.layout import Layout
from cxr_serving.model import bundle
from cxr_serving.model.bundle import METRICS_FILE, BundleError, BundleRecord, FormatError

# As many bundles as one can tell apart in a figure.
_RUNS = 20


def trend(layout: Layout, asset: str, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """The last trainings of a model, oldest first, from their own records.

    Args:
        layout: where bundles, reports and releases lie.
        asset: which model.
        progress: called with a line for each record that is broken; it is left out.

    Returns:
        For each ``version``, ``created_at``, ``data_version``, ``seed``, ``validation_macro_f1``;
        ``test_macro_f1`` where there was a report on it, else None; ``released``, whether a release
        was made of it.
    """
    released = set(bundle.versions(layout.releases))
    rows = []
    for version in bundle.versions(layout.models(asset))[-_RUNS:]:
        try:
            record = BundleRecord.read(layout.models(asset) / version)
        except FormatError:  # it was made before an upgrade
            continue
        except BundleError as error:
            progress(f"left out of the trend, because it is broken: {error}")
            continue
        rows.append(
            {
                "version": version,
                "created_at": record.created_at.isoformat(timespec="seconds"),
                "data_version": record.data_version,
                "seed": record.seed,
                "validation_macro_f1": record.validation.get("macro_f1"),
                "test_macro_f1": _reported(layout.reports / version / METRICS_FILE, progress),
                "released": version in released,
            }
        )
    return rows


def released(layout: Layout, asset: str, but: str) -> Path | None:
    """The bundle of the last release, unless it is the version ``but``; None where there is none.

    One of an earlier format does not count. A release is a bundle itself, so it does not matter
    whether the one it was made of is still kept.

    Raises:
        BundleError: the release or the pointer to it is broken.
    """
    version = bundle.read_pointer(layout.releases)
    if version is None or version == but:
        return None
    directory = layout.releases / version
    try:
        record = BundleRecord.read(directory)
    except FormatError:
        return None
    if record.asset != asset:
        raise BundleError(f"{directory} is a release of {record.asset}, not of {asset}")
    return directory


def _reported(metrics: Path, progress: Callable[[str], None]) -> float | None:
    if not metrics.is_file():
        return None
    try:
        return float(json.loads(metrics.read_bytes())["macro_f1"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        progress(f"left out of the trend, because it is broken: {metrics} ({error!r})")
        return None
