"""A report without Dagster: ``python -m cxr_assets.evaluation``."""

import argparse
import sys
from functools import partial
from pathlib import Path

from cxr_assets.evaluation.images import ReportError
from cxr_assets.evaluation.report import PAGE_FILE, report_on_folder
from cxr_assets.radiographs.raw import RawDataError
from cxr_serving.model.bundle import BundleError


def main() -> None:
    """Write the report of any bundle on any folder of images."""
    parser = argparse.ArgumentParser(
        prog="python -m cxr_assets.evaluation",
        description="Report on a bundle, from images of any folder in the layout of the raw data: "
        "NORMAL/ and PNEUMONIA/, in test/ where there is one.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="directory of the bundle")
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--out", type=Path, required=True, help="where the report goes")
    parser.add_argument("--baseline", type=Path, help="bundle to compare with")
    arguments = parser.parse_args()
    progress = partial(print, file=sys.stderr, flush=True)
    try:
        out = report_on_folder(
            arguments.bundle, arguments.data, arguments.out, arguments.baseline, progress
        )
    except (BundleError, RawDataError, ReportError) as error:
        sys.exit(f"error: {error}")
    progress(f"report: {out / PAGE_FILE}")


if __name__ == "__main__":
    main()
