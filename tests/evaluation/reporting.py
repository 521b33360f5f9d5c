"""Making and reading the report on the bundles of a data root."""

from html.parser import HTMLParser
from pathlib import Path

from cxr_assets.evaluation.report import write_report
from cxr_assets.layout import Layout
from cxr_assets.progress import Progress
from cxr_serving.model import store

RELEASED = "20260101T000000Z-00000000"


class Page(HTMLParser):
    """The text of a page, and the addresses that it refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def bundles(layout: Layout) -> tuple[Path, Path]:
    """The newest main model and baseline."""
    return (
        store.latest(layout.models("convnext_model")),
        store.latest(layout.models("dinov2_probe")),
    )


def report_on(layout: Layout, progress: Progress = lambda line: None) -> Path:
    """The report on them."""
    return write_report(layout, *bundles(layout), progress)
