"""What models lose between two sets of images, with intervals over patients, and tables of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.measure import machine
from cxr_assets.evaluation import bootstrap, inference
from cxr_assets.evaluation import images as evaluated
from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.metrics import evaluate
from cxr_assets.evaluation.operating import NORMAL
from cxr_assets.evaluation.wording import words
from cxr_serving.model.predictor import Predictor

_AUROC = "auroc_macro_ovr"
_MEAN = "mean"


@dataclass(frozen=True)
class Measured:
    """Metrics of one training, or the mean of several.

    Attributes:
        estimates: by ``in/``, ``out/`` or ``drop/`` and the metric: ``macro_f1``,
            ``<class>/recall`` and, without draws, ``auroc_macro_ovr``. The drop is what the images
            that are left out lose to those of validation.
        draws: the same in each draw of the bootstrap over patients.
    """

    estimates: pd.Series
    draws: pd.DataFrame

    @classmethod
    def of(cls, predictor: Predictor, processed: Path) -> "Measured":
        """Of a model, on the validation and test images of a dataset."""
        inside = _judge(predictor, evaluated.validation_split(processed))
        outside = _judge(predictor, evaluated.test_split(processed))
        # Both sides are drawn by the same random numbers, and are not pairs: they are turned about,
        # so that draws of other patients are not compared as if they belonged together.
        turned = outside.draws.iloc[::-1].reset_index(drop=True)
        sides = {"in/": inside, "out/": cls(outside.estimates, turned)}
        sides["drop/"] = sides["in/"] - sides["out/"]
        return cls(
            pd.concat([one.estimates.add_prefix(side) for side, one in sides.items()]),
            pd.concat([one.draws.add_prefix(side) for side, one in sides.items()], axis=1),
        )

    @classmethod
    def mean(cls, several: Sequence["Measured"]) -> "Measured":
        """Over trainings, of which those on the same images share their draws."""
        return cls(
            pd.concat([one.estimates for one in several], axis=1).mean(axis=1),
            pd.concat([one.draws for one in several]).groupby(level=0).mean(),
        )

    def __sub__(self, other: "Measured") -> "Measured":
        """The difference, paired draw by draw."""
        return Measured(self.estimates - other.estimates, self.draws - other.draws)

    def figures(self) -> dict[str, dict[str, Any]]:
        """Estimate and 95 % interval of each metric."""
        return {
            name: {
                "estimate": round(float(estimate), 6),
                "interval": bootstrap.interval(self.draws[name]) if name in self.draws else None,
            }
            for name, estimate in self.estimates.items()
        }


def _judge(predictor: Predictor, images: Images) -> Measured:
    classes = predictor.record.classes
    targets, drawn = images.targets(classes), bootstrap.draws(images.table["patient"])
    (probabilities,) = inference.predict([predictor], images.paths, lambda pixels, answers: None)
    scores = evaluate(probabilities, targets, classes)
    names = ["macro_f1", *(f"{label}/recall" for label in classes)]
    recalls = [scores.classification_report.classes[label].recall for label in classes]
    return Measured(
        pd.Series([scores.macro_f1, *recalls, scores.auroc_macro_ovr], [*names, _AUROC], float),
        bootstrap.top1(probabilities, targets, classes, drawn)[names],
    )


def content(results: pd.DataFrame) -> bytes:
    """Every figure as JSON: of each training, of each arm and part, and against the first arm.

    Args:
        results: one row per training: ``arm``, ``tested``, ``seed``, ``measured``, and ``scanners``
            (:class:`~cxr_serving.model.robustness.Robustness`).
    """
    trainings = [
        {
            **row,
            "measured": row["measured"].figures(),
            "scanners": row["scanners"].model_dump(mode="json"),
        }
        for row in results.to_dict("records")
    ]
    found = [
        {
            "arm": arm,
            "tested": tested,
            "trainings": number,
            "figures": measured.figures(),
            "to_first_arm": compared.figures() if compared else None,
        }
        for arm, tested, number, measured, compared in _over_seeds(results)
    ]
    every = {"machine": machine(), "means": found, "trainings": trainings}
    return (json.dumps(every, indent=2) + "\n").encode()


def _over_seeds(
    results: pd.DataFrame,
) -> Iterator[tuple[str, str, int, Measured, Measured | None]]:
    """Arm, part, number of trainings, their mean, and its difference to the first arm.

    The last part of an arm is the mean over all of them.
    """
    first: dict[str, Measured] = {}
    for arm, of_arm in results.groupby("arm", sort=False):
        of_part = {
            str(tested): Measured.mean(list(rows["measured"]))
            for tested, rows in of_arm.groupby("tested", sort=False)
        }
        if len(of_part) > 1:
            of_part[_MEAN] = Measured.mean(list(of_part.values()))
        for tested, measured in of_part.items():
            number = len(of_arm if tested == _MEAN else of_arm[of_arm["tested"] == tested])
            compared = measured - first[tested] if tested in first else None
            yield str(arm), tested, number, measured, compared
        first = first or of_part


def tables(results: pd.DataFrame) -> str:
    """Markdown: macro F1, recall of normal or of the class that loses most, AUROC, and scanners.

    Args:
        results: as of :func:`content`.
    """
    every = list(_over_seeds(results))
    recalls = every[0][3].estimates.filter(regex="^drop/.*/recall$")
    wanted = f"drop/{NORMAL}/recall"
    recall = (wanted if wanted in recalls else str(recalls.idxmax())).removeprefix("drop/")
    shifts = [_table(metric, every) for metric in ("macro_f1", recall, _AUROC)]
    return "\n".join([*shifts, _scanners(results, recall.removesuffix("/recall"))])


def _scanners(results: pd.DataFrame, label: str) -> str:
    """What each simulated scanner costs on validation images, the mean over trainings."""
    drops = pd.DataFrame(
        {
            "scanner": words(name),
            "arm": arm,
            "macro F1": scanned.macro_f1.drop,
            f"recall of {words(label)}": scanned.recalls[label].drop,
        }
        for arm, found in zip(results["arm"], results["scanners"], strict=True)
        for name, scanned in found.scanners.items()
    )
    metrics = list(drops.columns[2:])
    table = drops.pivot_table(metrics, "scanner", "arm", sort=False)[metrics]
    table.loc["mean"] = table.mean()
    table.columns = pd.Index([f"{metric}, {arm}" for metric, arm in table.columns])
    markdown = (
        table.map("{:.3f}".format).reset_index().to_markdown(index=False, disable_numparse=True)
    )
    images = results["scanners"].iloc[0].images
    return f"\ndrop by simulated scanners, on {images} validation images\n\n{markdown}"


def _table(metric: str, every: list[tuple[str, str, int, Measured, Measured | None]]) -> str:
    rows = []
    for arm, tested, _, measured, compared in every:
        figures = {name: _text(**one) for name, one in measured.figures().items()}
        row = {"arm": arm, "left out": tested}
        row |= {name: figures[f"{name}/{metric}"] for name in ("in", "out", "drop")}
        changed = compared and compared.figures()
        for name in ("out", "drop"):
            to_first = _text(**changed[f"{name}/{metric}"], sign="+") if changed else ""
            row[f"{name}, to the first arm"] = to_first
        rows.append(row)
    markdown = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    return f"\n{metric.replace('/', ': ').replace('_', ' ')}\n\n{markdown}"


def _text(estimate: float, interval: tuple[float, float] | None, sign: str = "") -> str:
    text = f"{estimate:{sign}.3f}"
    return f"{text} ({interval[0]:{sign}.3f} to {interval[1]:{sign}.3f})" if interval else text
