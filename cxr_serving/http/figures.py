"""What the report says of a model."""

from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from cxr_serving.http.schemas import Figure, TestFigures
from cxr_serving.model import bundle
from cxr_serving.model.bundle import METRICS_FILE

_NAMES = ("accuracy", "macro_f1", "auroc_macro_ovr")


class FiguresError(Exception):
    """A report is there and is none; the message names it."""


class _Report(BaseModel):
    images: int
    accuracy: float
    macro_f1: float
    auroc_macro_ovr: float
    intervals: dict[str, object]


_INTERVAL = TypeAdapter(tuple[float, float])


def read(data_root: Path, bundle_directory: Path) -> TestFigures | None:
    """Read the figures of the bundle in ``bundle_directory``; None before there is a report.

    A release has its figures beside it, those of other bundles are in the report of the version.

    Raises:
        FiguresError: the file is broken.
    """
    reported = bundle.reports_directory(data_root) / bundle_directory.name
    for path in (bundle_directory / METRICS_FILE, reported / METRICS_FILE):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise FiguresError(f"{path} cannot be read: {error.strerror}") from error
        try:
            report = _Report.model_validate_json(content)
            figures = {}
            for name in _NAMES:
                low, high = _INTERVAL.validate_python(report.intervals.get(name))
                figures[name] = Figure(value=getattr(report, name), low=low, high=high)
        except ValidationError as error:
            raise FiguresError(f"{path} is not a report of this format") from error
        return TestFigures(images=report.images, figures=figures)
    return None
