"""``report.html``: one page that needs nothing but itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_assets.evaluation import plots
from cxr_assets.evaluation.audit import ISSUES, having
from cxr_assets.evaluation.errors import Error
from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.templates import TEMPLATES
from cxr_assets.evaluation.wording import ALTERED_NOTE, FEW_NOTE
from cxr_assets.radiographs import changes
from cxr_serving.model.explanation import data_url, grad_cam, overlay, png
from cxr_serving.model.gate import DESCRIPTIONS
from cxr_serving.model.report import Report

# Of each issue: enough to tell whether the whole table is worth reading.
_SHOWN = 12


def render(
    report: Report,
    plots_directory: Path,
    errors: Sequence[Error],
    images: Images,
    suspects: pd.DataFrame | None,
) -> str:
    """The page; every number in it is one of ``report``.

    Args:
        report: what the page shows.
        plots_directory: holds the plots of the report as PNG files.
        errors: the most confident errors of the main model.
        images: what was evaluated.
        suspects: the table of the label audit, if there was one; its files are below the root of
            the images.
    """
    embedded = {
        path.stem: data_url(path.read_bytes()) for path in sorted(plots_directory.glob("*.png"))
    }
    if len(report.trend) > 1:
        embedded["trend"] = data_url(
            plots.trend(report.trend, report.model.asset, report.synthetic)
        )
    return TEMPLATES.get_template("report.html.j2").render(
        m=report,
        plots=embedded,
        few_note=FEW_NOTE,
        altered_note=ALTERED_NOTE,
        descriptions=DESCRIPTIONS,
        changed=changes.sentence(report.changes),
        changes=changes.table(report.changes).to_dict("index") if report.changes else {},
        errors=[_shown(error, images, report.classes) for error in errors],
        suspects={} if suspects is None else _suspects(suspects, images.root),
    )


def _suspects(table: pd.DataFrame, root: Path) -> dict[str, list[dict[str, Any]]]:
    """The first rows of each issue with their images as URLs; a pair of duplicates once.

    An image stands below its first issue, and if the gate rejects it, also below that.
    """
    first = table["issue"].str.split("+").str[0]
    shown = {}
    for issue in ISSUES:
        rows = having(table, issue) if issue == "gate" else table[first == issue]
        if issue == "duplicate":
            pairs = [frozenset(pair) for pair in zip(rows["file"], rows["other_file"], strict=True)]
            rows = rows[~pd.Series(pairs, index=rows.index, dtype=object).duplicated()]
        columns = ["file", "other_file"] if issue == "duplicate" else ["file"]
        shown[issue] = [
            {**row, "images": [data_url((root / row[name]).read_bytes()) for name in columns]}
            for row in rows.head(_SHOWN).to_dict("records")
        ]
    return shown


def _shown(error: Error, images: Images, classes: Sequence[str]) -> dict[str, Any]:
    cam = None
    if error.cam is not None:
        cam = overlay(error.pixels, grad_cam(error.cam, len(error.pixels)))
    return {
        "name": images.paths[error.image].name,
        "sha256": images.table["sha256"].iloc[error.image],
        "truth": classes[error.truth],
        "answer": classes[error.answer],
        "confidence": error.confidence,
        "image": data_url(png(error.pixels)),
        "cam": cam and data_url(cam),
    }
