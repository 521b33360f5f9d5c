"""``report.html``: one page that needs nothing but itself."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from cxr_assets.evaluation import images as evaluated
from cxr_assets.evaluation import plots
from cxr_assets.evaluation.images import Images
from cxr_serving.model.explanation import grad_cam, overlay, png
from cxr_serving.model.predictor import Predictor

# Of each kind of error the most confident ones.
_EACH = 2


def render(
    metrics: dict[str, Any],
    pictures: Path,
    predictor: Predictor,
    images: Images,
    probabilities: npt.NDArray[np.floating[Any]],
) -> str:
    """The page; every number in it is one of ``metrics``.

    Args:
        metrics: contents of ``metrics.json``.
        pictures: directory with the report's figures.
        predictor: of the main model, which explains its errors.
        images: what was evaluated.
        probabilities: [N, C], the main model's.
    """
    environment = Environment(
        loader=PackageLoader("cxr_assets.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": _score, "share": _share, "words": _words, "p": _p}
    embedded = {path.stem: _uri(path.read_bytes()) for path in sorted(pictures.glob("*.png"))}
    if len(metrics["trend"]) > 1:
        trend = plots.trend(
            pd.DataFrame(metrics["trend"]), metrics["model"]["asset"], metrics["synthetic"]
        )
        embedded["trend"] = _uri(trend)
    return environment.get_template("report.html.j2").render(
        m=metrics,
        models=[one for one in (metrics, metrics["baseline"]) if one],
        pictures=embedded,
        hardest=_hardest(predictor, images, probabilities),
    )


def _hardest(
    predictor: Predictor, images: Images, probabilities: npt.NDArray[np.floating[Any]]
) -> list[dict[str, Any]]:
    """The most confident errors of each kind, and what the network looked at."""
    classes = predictor.record.classes
    targets, predicted = images.targets(classes), probabilities.argmax(axis=1)
    wrong = pd.DataFrame(
        {
            "image": np.arange(len(targets)),
            "truth": targets,
            "answer": predicted,
            "confidence": probabilities.max(axis=1),
        }
    )
    wrong = wrong[wrong["truth"] != wrong["answer"]].sort_values("confidence", ascending=False)
    wrong = wrong.groupby(["truth", "answer"]).head(_EACH).sort_values(["truth", "answer"])
    if wrong.empty:
        return []
    paths = [images.root / path for path in images.table["path"].iloc[wrong["image"]]]
    pixels = evaluated.decode(predictor, paths)
    cam = predictor.answer(pixels)[1]
    return [
        {
            "name": path.name,
            "truth": classes[row.truth],
            "answer": classes[row.answer],
            "confidence": float(row.confidence),
            "image": _uri(png(image)),
            "attention": None
            if cam is None
            else _uri(overlay(image, grad_cam(cam[index, row.answer], len(image)))),
        }
        for index, (row, path, image) in enumerate(
            zip(wrong.itertuples(), paths, pixels, strict=True)
        )
    ]


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _score(value: float | None, interval: list[float] | None = None) -> str:
    """Three decimals and the interval; a dash where it is not defined."""
    if value is None:
        return "not defined"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _share(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.1%}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _words(name: str) -> str:
    return name.replace("_", " ")
