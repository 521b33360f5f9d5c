"""Reports on disk: their kinds, the newest one, and deleting old ones."""

import functools
from pathlib import Path

from cxr_assets import written
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress, held
from cxr_serving.model import store
from cxr_serving.model.bundle import is_version
from cxr_serving.model.report import METRICS_FILE, MissingReport

# On the test split, which a release is made from, and on any folder.
REPORT = "report"
EVALUATION = "evaluation report"

PREDICTIONS_FILE = "predictions.csv"


def latest_report(layout: Layout) -> Path:
    """The directory of the newest report.

    Raises:
        MissingReport: there is none yet, or it was deleted.
    """
    version = store.read_pointer(layout.reports)
    if version is None or not (layout.reports / version / METRICS_FILE).is_file():
        raise MissingReport(f"no report in {layout.reports}: materialise metrics_report first")
    return layout.reports / version


def prune(layout: Layout, keep: int, progress: Progress = lambda line: None) -> None:
    """Delete the oldest reports beyond ``keep``, and the metrics of all that are gone.

    Reports that somebody else has changed are kept, and their metrics with them.

    Args:
        layout: where reports and metrics lie.
        keep: how many reports to keep at least.
        progress: called with a line before it waits for another process.

    Raises:
        BundleError: the pointer to the newest report is broken; nothing is deleted.
    """
    with held(layout.reports_lock, "reports are being written", progress):
        foreign = functools.partial(written.foreign, kind=REPORT)
        store.prune(layout.reports, keep, foreign=foreign)
        for path in list(layout.metrics.glob("*.json")):
            if is_version(path.stem) and not (layout.reports / path.stem).exists():
                path.unlink()
