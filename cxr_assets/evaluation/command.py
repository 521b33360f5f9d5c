"""``cxr evaluate``: a report without Dagster."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cxr_assets.evaluation.on_images import report_on_images
from cxr_assets.layout import PAGE_FILE
from cxr_assets.radiographs.raw import RawDataError
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.report import ReportError


def evaluate(
    bundle: Path, data: Path, out: Path, baseline: Path | None, labels: Mapping[str, str | None]
) -> None:
    """Write the report of any bundle on any images; exit with 1 if that fails.

    Args:
        bundle: its directory.
        data: folder in the layout of the raw data: NORMAL/ and PNEUMONIA/, below test/ if there
            is one; or a CSV or Parquet file with a row per image.
        out: folder for the report: new, empty, or with an earlier report and nothing else.
        baseline: directory of the bundle to compare with, if any.
        labels: class by label of the images, None for one that is left out; a class needs no entry.
    """
    progress = partial(print, file=sys.stderr, flush=True)
    try:
        written = report_on_images(bundle, data, out, baseline, progress, labels)
    except (BundleError, RawDataError, ReportError) as error:
        sys.exit(f"error: {error}")
    progress(f"report: {written / PAGE_FILE}")
