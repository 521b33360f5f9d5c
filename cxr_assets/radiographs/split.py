"""Patient-wise splits: as a source gives them, as they were recorded, or drawn by hash."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import pandas as pd

from cxr_assets.radiographs.naming import EXTERNAL
from cxr_assets.sources import Data, Source

# What Kaggle's train and val say: their images are in either, but not in test.
_POOLED = "train or val"
_REDRAW = "set data.seed to another number, which draws all patients again"


class SplitError(ValueError):
    """A patient would be in two splits; the message says which, and what to do."""


@dataclass
class _Patient:
    """One patient.

    Attributes:
        name: identifies it.
        position: in [0, 1), a function of seed and name.
        labels: classes of its images.
        given: splits that its source gives to its images.
        split: where it is now.
        choices: splits that it may still be moved to; none if its split is given or recorded.
    """

    name: str
    position: float
    labels: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)
    split: str = "train"
    choices: tuple[str, ...] = ()


def assign_splits(
    images: pd.DataFrame,
    sources: Sequence[Source],
    data: Data,
    classes: Sequence[str],
    recorded: Mapping[str, str],
) -> pd.Series:
    """Assign each image to ``train``, ``val``, ``test`` or ``external``.

    The split that a source gives is respected, and a recorded patient stays where it was. Any other
    is drawn by a hash of its name and the seed, so that neither other patients nor the order of the
    rows matter. Kaggle's ``train`` and ``val`` are pooled and drawn again, because its ``val`` has
    16 images, too few for selection. A share is drawn into test only of a source that gives no
    ``test``. Images that their source puts elsewhere, of a patient with images in ``test``, get no
    split. Where a class has no patient in a split, the one of the smallest hash is moved there, of
    those just drawn; if none can be moved without emptying another split, it stays empty.

    Args:
        images: columns ``source``, ``split`` (the source's, or None), ``label`` and ``patient``.
        sources: all sources; those for train or test alone are ``train`` and ``external``.
        data: seed and fractions of the draw.
        classes: that every split needs.
        recorded: split of each patient that may not move.

    Returns:
        Series of split names with the index of ``images``; None if an image must be left out.

    Raises:
        SplitError: a patient would move, or is both in ``train`` and in ``val`` of a table.
    """
    given = _given(images, {source.name: source for source in sources})
    with_test = set(images["source"][given == "test"])
    found: dict[str, _Patient] = {}
    origin: dict[str, str] = {}
    for name, source, label, split in zip(
        images["patient"], images["source"], images["label"], given, strict=True
    ):
        if name not in found:
            found[name] = _Patient(name, _position(name, data.seed))
            origin[name] = source
        found[name].labels.add(label)
        if split is not None:
            found[name].given.add(split)
    for patient in found.values():
        draws_test = not patient.given and origin[patient.name] not in with_test
        _place(patient, recorded.get(patient.name), draws_test, data)
    _fill(found.values(), classes)

    now = images["patient"].map({name: patient.split for name, patient in found.items()})
    leaking = (now == "test") & ~given.isin(["test", None])
    return now.astype(object).where(~leaking, None)


def _given(images: pd.DataFrame, sources: Mapping[str, Source]) -> pd.Series:
    """What the source of each image says of its split; None where it is to be drawn."""

    def of(name: str, split: str | None) -> str | None:
        source = sources[name]
        if source.use != "all":
            return {"train": "train", "test": EXTERNAL}[source.use]
        if split is None or pd.isna(split):
            return None
        return split if source.source == "table" or split == "test" else _POOLED

    splits = [of(*row) for row in zip(images["source"], images["split"], strict=True)]
    return pd.Series(splits, index=images.index, dtype=object)


def _position(patient: str, seed: int) -> float:
    digest = sha256(f"{seed}\0{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _place(patient: _Patient, before: str | None, draws_test: bool, data: Data) -> None:
    """Set the split of a patient: given, else recorded, else drawn."""
    given = "test" if "test" in patient.given else next(iter(sorted(patient.given)), None)
    if given != "test" and len(patient.given) > 1:
        raise SplitError(
            f"patient {patient.name} has images in {' and in '.join(sorted(patient.given))} of its "
            "table: give all of them the same split, or leave it empty to have it drawn"
        )
    fitting = (None, "train", "val") if given == _POOLED else (None, given)
    if before is not None and given is not None and before not in fitting:
        raise SplitError(
            f"patient {patient.name} was in {before} and would move to {given}, as its source now "
            "says: models were trained or chosen on that. Restore its split, or the use of the "
            f"source, or {_REDRAW}"
        )
    if given not in (None, _POOLED):
        patient.split = given
    elif before is not None:
        patient.split = before
    else:
        patient.choices = ("val", "train") if given == _POOLED else ("test", "val", "train")
        patient.split = "train"
        if patient.position >= 1 - data.val_fraction:
            patient.split = "val"
        elif draws_test and patient.position < data.test_fraction:
            patient.split = "test"


def _fill(patients: Iterable[_Patient], classes: Sequence[str]) -> None:
    """Move freely drawn patients to splits where a class has none, without emptying another."""
    everyone = list(patients)
    sizes = Counter((patient.split, label) for patient in everyone for label in patient.labels)
    for label in classes:
        for split in ("test", "val", "train"):
            if sizes[split, label]:
                continue
            movable = [
                patient
                for patient in everyone
                if split in patient.choices
                and label in patient.labels
                and all(sizes[patient.split, other] > 1 for other in patient.labels)
            ]
            if not movable:
                continue
            chosen = min(movable, key=lambda patient: (patient.position, patient.name))
            for other in chosen.labels:
                sizes[chosen.split, other] -= 1
                sizes[split, other] += 1
            chosen.split = split
