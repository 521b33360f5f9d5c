"""What changed between two processed datasets: counted, as a table and in words."""

from datetime import date

import pandas as pd

from cxr_serving.model.dataset import Change, Changes

_KEY = ["source", "path"]


def between(before: pd.DataFrame, after: pd.DataFrame, since: str, made_on: date) -> Changes:
    """Compare the images that two manifests keep, by source and path.

    An image may count twice, as relabelled and as moved.

    Args:
        before, after: the manifests.
        since: data version of the first one.
        made_on: when the second one was made.
    """
    columns = [*_KEY, "class", "site", "split", "sha256"]
    old, new = (one.loc[one["kept"], columns] for one in (before, after))
    every = old.merge(new, "outer", _KEY, suffixes=("_before", ""), indicator="in")
    removed, both = every["in"] == "left_only", every["in"] == "both"
    for name in ("class", "site"):
        every[name] = every[name].mask(removed, every[f"{name}_before"])
    differing = {
        "added": every[every["in"] == "right_only"],
        "removed": every[removed],
        "relabelled": every[both & (every["class"] != every["class_before"])],
        "moved": every[both & (every["split"] != every["split_before"])],
        "replaced": every[both & (every["sha256"] != every["sha256_before"])],
    }

    def by(column: str) -> dict[str, Change]:
        counts = pd.DataFrame(
            {kind: images[column].value_counts() for kind, images in differing.items()}
        )
        counts = counts.fillna(0).astype(int).sort_index()
        return {str(name): Change(**row) for name, row in counts.to_dict("index").items()}

    return Changes(
        made_on=made_on,
        since=since,
        total=Change(**{kind: len(images) for kind, images in differing.items()}),
        classes=by("class"),
        sites=by("site"),
    )


def table(changes: Changes) -> pd.DataFrame:
    """One row for all images, then one per class and per site that changed."""
    rows = {
        "all": changes.total,
        **changes.classes,
        **{f"site {name}": change for name, change in changes.sites.items()},
    }
    return pd.DataFrame({name: change.model_dump() for name, change in rows.items()}).T


def sentence(changes: Changes | None) -> str:
    """All of it in one sentence, with the date: a later week may repeat it."""
    if changes is None:
        return "This is the first dataset."
    total = changes.total.model_dump()
    if not any(total.values()):
        return f"The dataset of {changes.made_on} has the images of the one before."
    parts = []
    for kind, number in total.items():
        if number:
            of_class = [
                f"{getattr(change, kind):,} {name.replace('_', ' ')}"
                for name, change in changes.classes.items()
                if getattr(change, kind)
            ]
            words = "moved to another split" if kind == "moved" else kind
            parts.append(f"{number:,} {words} ({', '.join(of_class)})")
    return f"Images in the dataset of {changes.made_on} since the one before: {', '.join(parts)}."
