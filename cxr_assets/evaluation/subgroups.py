"""Whether the model is as good on one part of the images as on another."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torchmetrics.functional.classification import multiclass_f1_score

from cxr_assets.evaluation import bootstrap
from cxr_assets.evaluation.images import Images
from cxr_assets.radiographs import naming
from cxr_serving.model.report import Subgroup

# A patient with more images than this has many.
_FEW = 2
# From infants and toddlers to children at 2 years, to adolescents at 12 and to adults at 18 (ICH
# E11(R1), 2017); old from 65 on (ICH E7, 1993). The band that ends at 5 years is that for which the
# WHO defines pneumonia of children, and that of the Kermany data set.
_AGES = {
    "under 2 years": 2,
    "2 to 4 years": 5,
    "5 to 11 years": 12,
    "12 to 17 years": 18,
    "18 to 64 years": 65,
    "65 years and over": np.inf,
}


def subgroups(
    images: Images,
    probabilities: npt.NDArray[np.floating[Any]],
    classes: tuple[str, ...],
    drawn: torch.Tensor,
) -> list[Subgroup]:
    """Metrics on parts of the images, stratified by one criterion after the other.

    These are the source, site, sex and age of the patient, view, year, the series that Kaggle's
    names give normal images, size, and images per patient. Sites of the same name are one site,
    whatever source names them.

    Args:
        images: N images.
        probabilities: [N, C].
        classes: C names.
        drawn: what :func:`cxr_assets.evaluation.bootstrap.draws` returns for the images.

    Returns:
        One for each of :func:`parts`. ``macro_f1`` is over the classes in it, None where there is
        only one.
    """
    targets = images.targets(classes)
    predicted = probabilities.argmax(axis=1)
    rows = []
    for group, name, member in parts(images.table):
        present = np.unique(targets[member])
        f1 = multiclass_f1_score(
            torch.from_numpy(predicted[member]),
            torch.from_numpy(targets[member]),
            len(classes),
            average=None,
        )
        draws = bootstrap.top1(probabilities, targets, classes, drawn, member)
        several, patients = len(present) > 1, images.table["patient"][member].nunique()
        if patients < 2:  # nothing to resample
            draws[:] = np.nan
        rows.append(
            Subgroup(
                group=group,
                subgroup=name,
                images=int(member.sum()),
                patients=int(patients),
                accuracy=round(float((predicted == targets)[member].mean()), 6),
                interval=bootstrap.interval(draws["accuracy"]),
                macro_f1=round(float(f1[present].mean()), 6) if several else None,
                macro_f1_interval=bootstrap.interval(draws["macro_f1"]) if several else None,
            )
        )
    return rows


def parts(table: pd.DataFrame) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    """The parts of N images by one criterion after the other.

    A stratification with a single part is left out; an image on which a criterion says nothing is
    in no part.

    Args:
        table: that of :class:`Images`.

    Yields:
        The criterion, the part, and which images are in it: bool [N].
    """
    for group, part in _strata(table).items():
        names = [name for name in part.cat.categories if (part == name).any()]
        if len(names) > 1:
            for name in names:
                yield group, str(name), (part == name).to_numpy(dtype=bool)


def _strata(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Category of each image by each criterion, NaN where it has none."""
    number = table.groupby("patient")["patient"].transform("size")
    of_patient = pd.cut(
        number,
        [0, _FEW, np.inf],
        labels=[f"at most {_FEW} images", f"more than {_FEW} images"],
    )
    named = {name: _words(table[name]) for name in ("source", "site", "sex", "view")}
    return {
        "source": named["source"],
        "site": named["site"],
        "sex": named["sex"],
        "age": pd.cut(
            table["age"].astype(float), [0, *_AGES.values()], labels=list(_AGES), right=False
        ),
        "view": named["view"],
        "year": _words(table["acquired"].astype("string").str[:4]),
        "series of normal images": _words(table["patient"].map(naming.series)),
        "width of the image": _quartiles(table["width"]),
        "height of the image": _quartiles(table["height"]),
        "images per patient": of_patient,
    }


def _words(column: pd.Series) -> pd.Series:
    """The words of a column, in alphabetical order, as categories."""
    return column.astype("string").astype("category")


def _quartiles(pixels: pd.Series) -> pd.Series:
    """Quartiles of the size; fewer parts where many images are of one size."""
    edges = np.unique(np.quantile(pixels, [0, 0.25, 0.5, 0.75, 1]).round().astype(int))
    if len(edges) < 2:
        return pd.Series(pd.Categorical([f"{edges[0]} px"] * len(pixels)), index=pixels.index)
    labels = [f"{low} to {high} px" for low, high in itertools.pairwise(edges)]
    parts: pd.Series = pd.cut(pixels, edges.astype(float), labels=labels, include_lowest=True)
    return parts
