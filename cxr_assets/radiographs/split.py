"""Patient-wise validation split."""

import pandas as pd
from sklearn.model_selection import GroupShuffleSplit


class SplitError(ValueError):
    """The images cannot be split; the message says why."""


def assign_splits(images: pd.DataFrame, val_fraction: float, seed: int) -> pd.Series:
    """Assign each image to ``train``, ``val`` or ``test``.

    Kaggle's ``test`` is unchanged. Its ``train`` and ``val`` are pooled (its own ``val`` has 16
    images, too few for selection) and split again: in each class, ``val_fraction`` of the patients
    go to ``val``, and no patient is in both. Images of patients who are also in ``test`` get no
    split.

    Args:
        images: columns ``path``, ``split`` (the source's), ``label`` and ``patient``.
        val_fraction: share of the patients of each class, in (0, 1).
        seed: of the draw.

    Returns:
        Series of split names with the index of ``images``; None if an image must be left out.

    Raises:
        SplitError: a class has fewer than two patients outside ``test``.
    """
    splits = pd.Series("test", index=images.index, dtype=object)
    pool = images[images["split"] != "test"].sort_values(["patient", "path"])
    leaking = pool["patient"].isin(images.loc[images["split"] == "test", "patient"])
    splits[pool.index[leaking]] = None
    pool = pool[~leaking]
    for label, group in pool.groupby("label", sort=True):
        if group["patient"].nunique() < 2:
            raise SplitError(
                f"class {label} has images of fewer than two patients outside test: "
                "training and validation need at least one each"
            )
        shuffle = GroupShuffleSplit(n_splits=1, test_size=val_fraction, random_state=seed)
        train, val = next(shuffle.split(group, groups=group["patient"]))
        splits[group.index[train]] = "train"
        splits[group.index[val]] = "val"
    return splits
