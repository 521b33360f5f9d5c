"""A table that was cut off on its way looks like one whose images were removed."""

import math

import pandas as pd

from cxr_assets.radiographs.raw import RawImages
from cxr_assets.radiographs.selection import Previous
from cxr_assets.sources import Data


class ShrunkError(ValueError):
    """A source has lost many images at once; the message says how many, and what to do."""


def require_whole(raw: RawImages, previous: Previous, data: Data) -> None:
    """Check that no source has lost more of its images than a user removes in a week.

    An image is lost if neither its path nor its content is listed any more. Patients who withdrew
    consent have left the last dataset already. A source without any image of the last dataset is
    another one. Synthetic images are made anew where their settings change.

    Args:
        raw: the images as they are listed now.
        previous: the last dataset.
        data: with ``max_removed_fraction``.

    Raises:
        ShrunkError: one has.
    """
    before, now = previous.kept, raw.inventory
    paths, old = (pd.MultiIndex.from_frame(one[["source", "path"]]) for one in (now, before))
    there = before["sha256"].isin(now["sha256"].dropna()) | old.isin(paths)
    for source in raw.sources:
        ours = there[before["source"] == source.name]
        lost = int((~ours).sum())
        if source.source == "synthetic" or lost == len(ours):
            continue
        if lost > data.max_removed_fraction * len(ours):
            place = source.table or raw.roots[source.name]
            raise ShrunkError(
                f"{lost:,} of the {len(ours):,} images that the last dataset has from {place} are "
                f"listed no more, a larger share than data.max_removed_fraction="
                f"{data.max_removed_fraction:g}. If it was cut off, or copied in part, make it "
                "whole. If they were removed on purpose, set data.max_removed_fraction="
                f"{math.ceil(100 * lost / len(ours)) / 100:g} for the next run alone"
            )
