"""Whether the model is as good for some images as for others."""

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

# Beyond so many images of one patient there are many.
_FEW = 2


def subgroups(
    images: Images,
    probabilities: npt.NDArray[np.floating[Any]],
    classes: tuple[str, ...],
    drawn: torch.Tensor,
) -> list[dict[str, Any]]:
    """Scores of parts of the images.

    Args:
        images: N images.
        probabilities: [N, C].
        classes: C names.
        drawn: what :func:`cxr_assets.evaluation.bootstrap.draws` returns for the images.

    Returns:
        For each part: ``group``, by what the images were parted; ``subgroup``; ``images``;
        ``patients``; ``accuracy`` and its ``interval``; ``macro_f1`` over the classes in it, None
        where there is but one. A parting that leaves all images together is left out.
    """
    targets = images.targets(classes)
    predicted = probabilities.argmax(axis=1)
    right = torch.from_numpy(predicted == targets)
    rows = []
    for group, part in _partings(images.table).items():
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
                {
                    "group": group,
                    "subgroup": str(name),
                    "images": int(member.sum()),
                    "patients": int(images.table["patient"][member].nunique()),
                    "accuracy": round(float(right[torch.from_numpy(member)].double().mean()), 6),
                    "interval": bootstrap.interval(_accuracy(right, member, drawn)),
                    "macro_f1": round(float(f1[present].mean()), 6) if len(present) > 1 else None,
                }
            )
    return rows


def _accuracy(right: torch.Tensor, member: npt.NDArray[np.bool_], drawn: torch.Tensor) -> pd.Series:
    """Accuracy of the members in each draw, NaN where it has none."""
    counted = torch.from_numpy(member)[drawn] & (drawn >= 0)
    shares = (right[drawn] & counted).sum(dim=1) / counted.sum(dim=1)
    return pd.Series(shares.double().numpy())


def _partings(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Categories of the images, NaN where an image is in none, by what they go by."""
    names = table["path"].map(lambda path: PurePosixPath(path).name)
    series = names.map(_series).astype("category")
    number = table.groupby("patient")["patient"].transform("size")
    of_patient = pd.cut(
        number,
        [0, _FEW, np.inf],
        labels=[f"at most {_FEW} images of the child", "more images of the child"],
    )
    return {
        "series of normal images": series,
        "width of the image": _quarters(table["width"]),
        "height of the image": _quarters(table["height"]),
        "images of the same patient": of_patient,
    }


def _series(name: str) -> str | None:
    match = re.match(r"(NORMAL2-IM|IM)-", name, re.IGNORECASE)
    return f"{match[1].upper()}-" if match else None


def _quarters(pixels: pd.Series) -> pd.Series:
    """Quarters of the images; fewer parts where many images are of one size."""
    edges = np.unique(np.quantile(pixels, [0, 0.25, 0.5, 0.75, 1]).round().astype(int))
    if len(edges) < 2:
        return pd.Series(pd.Categorical([f"{edges[0]} px"] * len(pixels)), index=pixels.index)
    labels = [f"{low} to {high} px" for low, high in itertools.pairwise(edges)]
    parts: pd.Series = pd.cut(pixels, edges.astype(float), labels=labels, include_lowest=True)
    return parts
