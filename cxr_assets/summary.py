"""``cxr summary``: the newest metrics, report and release; the last lines of ``make demo``."""

import json
import sys

from rich.console import Console
from rich.table import Table

from cxr_assets.settings import SettingsError, load
from cxr_serving.model import bundle
from cxr_serving.model.bundle import METRICS_FILE, BundleError

COLUMNS = {"accuracy": "accuracy", "macro_f1": "macro F1", "auroc_macro_ovr": "AUROC"}


def show() -> None:
    """Print the newest test metrics, report and release, and what to do next."""
    try:
        layout = load().layout
    except SettingsError as error:
        sys.exit(f"error: {error}")
    report = layout.reports / METRICS_FILE
    if not report.exists():
        sys.exit(f"no report in {layout.reports}: run the job retrain first (make demo)")
    try:
        metrics = json.loads(report.read_bytes())
        release = bundle.read_pointer(layout.releases)
    except ValueError as error:
        sys.exit(f"error: {report} cannot be read ({error}): materialise metrics_report again")
    except BundleError as error:
        sys.exit(f"error: {error}")
    images = "synthetic images, not radiographs" if metrics["synthetic"] else "radiographs"
    table = Table(title=f"Test split of {layout.processed} ({images})")
    table.add_column("model")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for model, result in (("convnext_model", metrics), ("dinov2_probe", metrics["baseline"])):
        table.add_row(model, *(f"{result[name]:.3f}" for name in COLUMNS))
    console = Console()
    console.print(table)
    console.print(f"report   {report}")
    console.print(
        f"release  {layout.releases / release if release else 'none yet'}", soft_wrap=True
    )
    console.print(
        "\nnext     make dev      the graph in the Dagster UI, http://localhost:3000\n"
        "         make serve    the HTTP service and its page, http://localhost:8000\n"
        "         your images   CXR_EXPERIMENT=scratch "
        "CXR_OVERRIDES=\"data.folder='FOLDER'\" make demo\n"
        "\nFor research and education only; not a medical device.",
        highlight=False,
        soft_wrap=True,
    )
