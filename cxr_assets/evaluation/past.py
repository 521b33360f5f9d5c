"""Earlier trainings and the last release, from their records on disk."""

from pathlib import Path

from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError, BundleRecord, FormatError
from cxr_serving.model.report import MissingReport, Report, ReportError, TrendPoint

# More points cannot be told apart in the plot.
_RUNS = 20


def trend(layout: Layout, asset: str, progress: Progress) -> list[TrendPoint]:
    """The last trainings of a model, oldest first, from their own records.

    Args:
        layout: where bundles, reports and releases lie.
        asset: which model.
        progress: called with a line for each broken record, which is left out.
    """
    released = set(store.versions(layout.releases))
    rows = []
    for version in store.versions(layout.models(asset))[-_RUNS:]:
        try:
            record = BundleRecord.read(layout.models(asset) / version)
        except FormatError:  # made by another version of the pipeline
            continue
        except BundleError as error:
            progress(f"left out of the trend, because it is broken: {error}")
            continue
        rows.append(
            TrendPoint(
                version=version,
                created_at=record.created_at,
                data_version=record.data_version,
                seed=record.seed,
                validation_macro_f1=record.validation.get("macro_f1"),
                test_macro_f1=_reported(layout.reports / version, progress),
                released=version in released,
            )
        )
    return rows


def released(layout: Layout, asset: str, but: str) -> Path | None:
    """The bundle of the last release, unless it is the version ``but``; None where there is none.

    One of an earlier format does not count. A release is a bundle itself, so the bundle that it
    was made from need not exist any more.

    Raises:
        BundleError: the release or the pointer to it is broken.
    """
    version = store.read_pointer(layout.releases)
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


def _reported(directory: Path, progress: Progress) -> float | None:
    try:
        return Report.read(directory).macro_f1
    except MissingReport:
        return None
    except ReportError as error:
        progress(f"left out of the trend, because it is broken: {error}")
        return None
