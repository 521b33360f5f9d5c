"""The templates of this package, and how they write numbers and names."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from cxr_assets.evaluation.wording import p_value, rejection, score, share, suspicions, words
from cxr_serving.model.bundle import Rejections
from cxr_serving.model.metrics import Interval


def environment(package: str) -> Environment:
    """The templates that lie in a package."""
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


TEMPLATES = environment("cxr_assets.evaluation")


def _score(value: float | None, interval: Interval | None = None) -> str:
    return _on_one_line(score(value, interval))


def _rejection(found: Rejections) -> str:
    return _on_one_line(rejection(found))


def _on_one_line(text: str) -> str:
    """On a narrow screen an interval is not broken."""
    return text.replace(" to ", "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}")


TEMPLATES.filters |= {
    "score": _score,
    "share": share,
    "words": words,
    "p": p_value,
    "suspicions": suspicions,
    "rejection": _rejection,
}
