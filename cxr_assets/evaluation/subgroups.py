"""Whether the model is as good on one part of the images as on another."""

import itertools
import re
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torchmetrics.functional.classification import multiclass_f1_score

from cxr_assets.evaluation import bootstrap
from cxr_assets.evaluation.images import Images
from cxr_serving.model.report import Subgroup

# A patient with more images than this has many.
_FEW = 2


def subgroups(
    images: Images,
    probabilities: npt.NDArray[np.floating[Any]],
    classes: tuple[str, ...],
    drawn: torch.Tensor,
) -> list[Subgroup]:
    """Metrics on parts of the images, stratified in turn by series, size and images per patient.

    Args:
        images: N images.
        probabilities: [N, C].
        classes: C names.
        drawn: what :func:`cxr_assets.evaluation.bootstrap.draws` returns for the images.

    Returns:
        One for each part. ``macro_f1`` is over the classes in it, None where there is only one. A
        stratification with a single part is left out.
    """
    targets = images.targets(classes)
    predicted = probabilities.argmax(axis=1)
    right = torch.from_numpy(predicted == targets)
    rows = []
    for group, part in _strata(images.table).items():
        names = [name for name in part.cat.categories if (part == name).any()]
        if len(names) < 2:
            continue
        for name in names:
            member = (part == name).to_numpy()
            present = np.unique(targets[member])
            f1 = multiclass_f1_score(
                torch.from_numpy(predicted[member]),
                torch.from_numpy(targets[member]),
                len(classes),
                average=None,
            )
            rows.append(
                Subgroup(
                    group=group,
                    subgroup=str(name),
                    images=int(member.sum()),
                    patients=int(images.table["patient"][member].nunique()),
                    accuracy=round(float(right[torch.from_numpy(member)].double().mean()), 6),
                    interval=bootstrap.interval(_accuracy(right, member, drawn)),
                    macro_f1=round(float(f1[present].mean()), 6) if len(present) > 1 else None,
                )
            )
    return rows


def _accuracy(right: torch.Tensor, member: npt.NDArray[np.bool_], drawn: torch.Tensor) -> pd.Series:
    """Accuracy of the members in each draw, NaN in a draw without any."""
    counted = torch.from_numpy(member)[drawn] & (drawn >= 0)
    shares = (right[drawn] & counted).sum(dim=1) / counted.sum(dim=1)
    return pd.Series(shares.double().numpy())


def _strata(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Category of each image by each criterion, NaN where it has none."""
    names = table["path"].map(lambda path: PurePosixPath(path).name)
    series = names.map(_series).astype("category")
    number = table.groupby("patient")["patient"].transform("size")
    of_patient = pd.cut(
        number,
        [0, _FEW, np.inf],
        labels=[f"at most {_FEW} images", f"more than {_FEW} images"],
    )
    return {
        "series of normal images": series,
        "width of the image": _quartiles(table["width"]),
        "height of the image": _quartiles(table["height"]),
        "images per patient": of_patient,
    }


def _series(name: str) -> str | None:
    match = re.match(r"(NORMAL2-IM|IM)-", name, re.IGNORECASE)
    return f"{match[1].upper()}-" if match else None


def _quartiles(pixels: pd.Series) -> pd.Series:
    """Quartiles of the size; fewer parts where many images are of one size."""
    edges = np.unique(np.quantile(pixels, [0, 0.25, 0.5, 0.75, 1]).round().astype(int))
    if len(edges) < 2:
        return pd.Series(pd.Categorical([f"{edges[0]} px"] * len(pixels)), index=pixels.index)
    labels = [f"{low} to {high} px" for low, high in itertools.pairwise(edges)]
    parts: pd.Series = pd.cut(pixels, edges.astype(float), labels=labels, include_lowest=True)
    return parts
