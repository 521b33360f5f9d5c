"""``cxr summary``: the newest metrics, report and release; the last lines of ``make demo``."""

import sys
from functools import partial

from rich.console import Console
from rich.table import Table

from cxr_assets import decisions, exchange
from cxr_assets.decisions import DecisionError
from cxr_assets.evaluation.wording import score
from cxr_assets.layout import PAGE_FILE, Layout
from cxr_assets.radiographs import changes
from cxr_assets.settings import SettingsError, load
from cxr_serving.model import DISCLAIMER, store
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.report import Report, ReportError

COLUMNS = {"accuracy": "accuracy", "macro_f1": "macro F1", "auroc_macro_ovr": "AUROC"}


def show() -> None:
    """Print the summary of the data root that is configured."""
    try:
        layout = load().layout
        exchange.pull(layout, partial(print, file=sys.stderr, flush=True))
        print_summary(layout)
    except (SettingsError, ReportError, BundleError, DecisionError) as error:
        sys.exit(f"error: {error}")


def print_summary(layout: Layout) -> None:
    """Print the newest report, release and decision, and what to do next.

    Raises:
        MissingReport: there is no report yet.
        ReportError: the report is broken.
        BundleError: the pointer to the released model is broken.
        DecisionError: a decision on record is broken.
    """
    report = Report.read(layout.reports)
    release = store.read_pointer(layout.releases)
    images = "synthetic images, not radiographs" if report.synthetic else "radiographs"
    table = Table(title=f"Test split of {layout.processed} ({images})")
    table.add_column("model")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for model in report.models:
        table.add_row(model.model.asset, *(score(getattr(model, name)) for name in COLUMNS))
    for source, part in report.external.items():
        table.add_row(f"on {source} (external)", *(score(getattr(part, name)) for name in COLUMNS))
    console = Console()
    console.print(table)
    if report.dataset is not None:
        console.print(changes.sentence(report.changes))
        if unknown := report.dataset.unknown_patients:
            console.print(
                f"The patients of {unknown:,} images of the dataset are unknown: leakage between "
                "the splits cannot be excluded."
            )
    console.print(f"report   {layout.reports / PAGE_FILE}", soft_wrap=True)
    console.print(
        f"release  {layout.releases / release if release else 'none yet'}", soft_wrap=True
    )
    if history := decisions.history(layout):
        newest = history[-1]
        console.print(f"decided  {newest.version}: {newest.summary}", soft_wrap=True)
    console.print(
        "\nnext     make dev      the graph in the Dagster UI, http://localhost:3000\n"
        "         make serve    the HTTP service and its page, http://localhost:8000\n"
        "         your images   CXR_EXPERIMENT=scratch "
        "CXR_OVERRIDES=\"data=table data.table='TABLE'\" make demo\n"
        "                       how to make the table: docs/data.md\n"
        f"\n{DISCLAIMER}",
        highlight=False,
        soft_wrap=True,
    )
