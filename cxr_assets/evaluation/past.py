"""Earlier trainings and the released model, from their records on disk."""

from pathlib import Path

from cxr_assets import decisions
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

    Raises:
        DecisionError: a decision on record is broken.
    """
    released = {one.version for one in decisions.history(layout) if one.decision != "held"}
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


def champion(layout: Layout, asset: str, version: str) -> Path | None:
    """The released model that ``version`` is compared with; None where there is none.

    Where the pointer to it was deleted, as a broken one must be, the decisions on record say it.

    Once ``version`` is released itself, it is the one that it took the place of: making its report
    again changes nothing. A release is a bundle, so the bundle that it was made from need not exist
    any more.

    Raises:
        BundleError: the released model or the pointer to it is broken, or of another format.
        DecisionError: a decision on record is broken.
    """
    history = decisions.history(layout)
    released = store.read_pointer(layout.releases)
    if released is None:
        last = decisions.last_released(history)
        released = last if last and (layout.releases / last).exists() else None
    if released == version:
        decision = decisions.newest(history, version)
        released = decision.champion if decision else None
        if released is None or not (layout.releases / released).exists():
            return None
    if released is None:
        return None
    directory = layout.releases / released
    record = BundleRecord.read(directory)
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
