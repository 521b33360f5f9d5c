"""How much a model loses where another scanner, simulated, has made the images."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from cxr_assets.evaluation import bootstrap, inference
from cxr_assets.evaluation.images import Images
from cxr_assets.evaluation.scanners import SCANNERS, scan
from cxr_assets.sampling import evenly
from cxr_serving.model.predictor import Answers, Predictor
from cxr_serving.model.robustness import Loss, Robustness, Scanned

# The interval of a drop is then a few points wide. Each image takes a pass for every scanner.
_IMAGES = 300


def robustness(predictor: Predictor, images: Images) -> Robustness:
    """Metrics on some of the images, unchanged and as each simulated scanner makes them.

    No more than one batch of pixels is held in memory.

    Args:
        predictor: the model.
        images: of validation, as no choice may depend on test images; at most 300 of them, evenly
            spread, are used.

    Raises:
        ReportError: an image cannot be read, or is of a class that the model does not know.
    """
    chosen = evenly(len(images.table), _IMAGES)
    images = replace(images, table=images.table.iloc[chosen].reset_index(drop=True))
    plain: list[Answers] = []
    changed: dict[str, list[Answers]] = {name: [] for name in SCANNERS}

    def observe(pixels: inference.Pixels, answers: Answers) -> None:
        plain.append(answers._replace(cam=None))
        for name, answered in changed.items():
            answered.append(predictor.answer(scan(name, pixels))._replace(cam=None))

    inference.predict([predictor], images.paths, observe)
    drawn = bootstrap.draws(images.table["patient"])
    before = _measured(plain, predictor, images, drawn)
    scanners = {}
    for name, answered in changed.items():
        after = _measured(answered, predictor, images, drawn)
        losses = _losses(before, after)
        scanners[name] = Scanned(
            description=SCANNERS[name].description,
            macro_f1=losses.pop("macro_f1"),
            recalls=losses,
            rejected=_rejected(answered),
        )
    unchanged = before.iloc[0].dropna()
    return Robustness(
        images=len(images.table),
        patients=images.patients,
        macro_f1=round(float(unchanged.pop("macro_f1")), 6),
        recalls={str(name): round(float(value), 6) for name, value in unchanged.items()},
        rejected=_rejected(plain),
        scanners=scanners,
    )


def _measured(
    answers: Sequence[Answers], predictor: Predictor, images: Images, drawn: torch.Tensor
) -> pd.DataFrame:
    """``macro_f1``, and the recall by class: first on all images, then in each draw."""
    classes = predictor.record.classes
    probabilities = np.concatenate([batch.probabilities for batch in answers])
    targets = images.targets(classes)
    columns = {"macro_f1": "macro_f1", **{f"{name}/recall": name for name in classes}}
    every = torch.arange(len(targets)).unsqueeze(0)
    rows = [bootstrap.top1(probabilities, targets, classes, some) for some in (every, drawn)]
    return pd.concat(rows, ignore_index=True)[list(columns)].rename(columns=columns)


def _losses(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Loss]:
    """Of each metric that is defined on all images."""
    drops = before - after
    return {
        str(name): Loss(
            value=round(float(value), 6),
            drop=round(float(drops[name].iloc[0]), 6),
            interval=bootstrap.interval(drops[name].iloc[1:]),
        )
        for name, value in after.iloc[0].dropna().items()
    }


def _rejected(answers: Sequence[Answers]) -> int | None:
    verdicts = [batch.verdicts for batch in answers]
    if None in verdicts:
        return None
    return sum(not one.accepted for some in verdicts for one in some or ())
