"""Reports on disk: their kinds, and the newest one."""

from pathlib import Path

from cxr_assets.layout import Layout
from cxr_serving.model import store
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
